"""TRL's trainers, held to this project's rules: our tokens, our checkpoints, live figures, no silent NaN.

TRL 1.16 keeps ORPO under `trl.experimental`, which may change without notice: it is named in this file alone.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.launch import ScriptSession, cannot_write
from foundry_pipeline.training.checkpoints import seal
from foundry_pipeline.training.plan import Hyperparameters, steps_per_epoch, warmup_steps
from foundry_pipeline.training.tokens import Example, columns

_SCHEDULERS = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}
_OPTIMIZERS = {"adamw": "adamw_torch_fused", "adamw_8bit": "adamw_8bit"}
# What is shown beside the progress, as TRL names it → as we name it.
_SHOWN = {"loss": "loss", "nll_loss": "nll", "rewards/margins": "margin", "rewards/accuracies": "accuracy"}


def load_base(base_dir: Path, precision: str) -> tuple[Any, Any]:
    """The frozen model and its tokenizer, from local files only.

    In bfloat16 the frozen weights are held as the matrix products use them anyway; the adapter stays in float32.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not (base_dir / "config.json").is_file():
        raise FoundryError(
            "no model here (config.json is missing)", where=str(base_dir), mend="materialize the base model first"
        )
    tokenizer = AutoTokenizer.from_pretrained(base_dir, local_files_only=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(
        base_dir, dtype=dtype, attn_implementation="sdpa", local_files_only=True
    )
    model.config.use_cache = False
    return model, tokenizer


def make_trainer(
    model: Any,
    tokenizer: Any,
    values: Hyperparameters,
    training: list[Example],
    validation: list[Example],
    *,
    seed: int,
    save_every_steps: int,
    checkpoints: Path,
    fingerprint: str,
    seconds_before: float,
    live: Path,
    session: ScriptSession,
) -> Any:
    """A trainer of the method with a fresh LoRA on every linear layer, ready for `train()`.

    Checkpoints go to `checkpoints/step-N`, sealed with `fingerprint`; figures of every step to the file `live`.
    """
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import PrinterCallback

    on_gpu = torch.cuda.is_available()
    config_class, trainer_class, extra = _method(values)
    _need_optimizer(values.optimizer)
    steps = steps_per_epoch(len(training), values.batch_size, values.gradient_accumulation) * values.epochs
    arguments = config_class(
        output_dir=str(checkpoints / ".partial"),
        per_device_train_batch_size=values.batch_size,
        per_device_eval_batch_size=values.batch_size,
        gradient_accumulation_steps=values.gradient_accumulation,
        learning_rate=values.learning_rate,
        num_train_epochs=values.epochs,
        max_grad_norm=values.max_grad_norm,
        warmup_steps=warmup_steps(steps, values.warmup_fraction),
        lr_scheduler_type=_SCHEDULERS[values.scheduler],
        optim=_OPTIMIZERS[values.optimizer],
        bf16=values.precision == "bfloat16",
        use_cpu=not on_gpu,
        seed=seed,
        data_seed=seed,
        # on a GPU the base is large and activations do not fit; on a CPU memory is there and time is not
        gradient_checkpointing=on_gpu,
        max_length=values.max_length,
        save_strategy="steps",
        save_steps=save_every_steps,
        eval_strategy="no",
        logging_steps=1,
        logging_nan_inf_filter=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=on_gpu,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to="none",
        **extra,
    )
    adapter = LoraConfig(
        r=values.lora_rank,
        lora_alpha=values.lora_alpha,
        lora_dropout=0.0,
        target_modules=values.lora_targets,
        task_type="CAUSAL_LM",
    )
    started = time.monotonic()

    class Sealing(trainer_class):  # type: ignore[misc, valid-type]
        """The method's trainer with our tokens in and sealed checkpoints out."""

        def tokenize_row(self, feature: dict[str, Any], model: Any = None) -> dict[str, Any]:
            return feature  # ORPO: tokenized by us, never truncated

        def _prepare_dataset(self, dataset: Any, *_args: Any, **_kwargs: Any) -> Any:
            return dataset  # DPO and SFT: the same

        def create_model_card(self, *_args: Any, **_kwargs: Any) -> None:
            """Cards are written at export, from the lineage."""

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            from safetensors import SafetensorError

            step = self.state.global_step
            try:
                super()._save_checkpoint(model, trial)
                written = Path(self.args.output_dir) / f"checkpoint-{step}"
                seal(written, checkpoints, step, fingerprint, seconds_before + time.monotonic() - started)
            except (OSError, RuntimeError, SafetensorError) as error:  # torch says RuntimeError for a full disk
                raise cannot_write(f"checkpoint at step {step}: {error}", checkpoints) from error

    trainer = Sealing(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list([columns(example, values.method) for example in training]),
        eval_dataset=Dataset.from_list([columns(example, values.method) for example in validation]) or None,
        processing_class=tokenizer,
        peft_config=adapter,
        callbacks=[_reporter(live, session)],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def train_quickly(model: Any) -> AbstractContextManager[None]:
    """A context in which PEFT leaves the input's type to autocast.

    PEFT would cast every layer's input to the adapter's float32, and autocast back to bfloat16: the same numbers,
    bit for bit, and a tenth of the time.
    """
    from peft.helpers import disable_input_dtype_casting

    context: AbstractContextManager[None] = disable_input_dtype_casting(model)
    return context


def history(trainer: Any) -> list[dict[str, float]]:
    """The figures of every step since the beginning, over all attempts: `{step, loss, learning_rate, …}`."""
    return [_figures(entry) for entry in trainer.state.log_history if "loss" in entry]


def _figures(entry: dict[str, Any]) -> dict[str, float]:
    return {"step": entry["step"]} | {
        name: float(value) for name, value in sorted(entry.items()) if name not in ("step", "epoch")
    }


def _method(values: Hyperparameters) -> tuple[Callable[..., Any], type, dict[str, Any]]:
    """Configuration class, trainer class and the method's own settings."""
    if values.method == "orpo":
        from trl.experimental.orpo import ORPOConfig, ORPOTrainer

        return ORPOConfig, ORPOTrainer, {"beta": values.beta}
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    if values.method == "dpo":
        # the reference is the base itself, the adapter switched off: no second copy in memory
        return DPOConfig, DPOTrainer, {"beta": values.beta}
    return SFTConfig, SFTTrainer, {"dataset_kwargs": {"skip_prepare_dataset": True}}


def _need_optimizer(optimizer: str) -> None:
    from importlib.util import find_spec

    if optimizer == "adamw_8bit" and find_spec("bitsandbytes") is None:
        raise FoundryError(
            "optimizer adamw_8bit needs the package bitsandbytes",
            where="`optimizer` of the profile, under assets/profiles/",
            mend="pip install -e '.[gpu]'   # or set `optimizer: adamw`",
        )


def _reporter(live: Path, session: ScriptSession) -> Any:
    """A callback that writes each step's figures to `live`, shows them, and stops at the first that is not finite."""
    from transformers import TrainerCallback

    class Reporter(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            # a resumed training takes up at its checkpoint: what was written beyond it will be written again
            lines = [json.dumps(_figures(entry)) + "\n" for entry in state.log_history if "loss" in entry]
            live.write_text("".join(lines), encoding="utf-8")

        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            logs = kwargs["logs"]
            if "loss" not in logs:
                return
            figures = _figures({**logs, "step": state.global_step})
            if not math.isfinite(figures["loss"]):
                raise FoundryError(
                    f"the loss is {figures['loss']} at step {state.global_step}",
                    where=str(live),
                    mend="lower `learning_rate` of the run (assets/runs/) or its factor in the profile",
                )
            with live.open("a", encoding="utf-8") as file:
                file.write(json.dumps(figures) + "\n")
            shown = {ours: figures[theirs] for theirs, ours in _SHOWN.items() if theirs in figures}
            session.progress(state.global_step, state.max_steps, **shown)

    return Reporter()
