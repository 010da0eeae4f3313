import pytest

from foundry_pipeline.breaks import asserted_anachronisms
from foundry_pipeline.declarations.sources import Character, EvaluationPrompt
from foundry_pipeline.evaluation.integrity import (
    CAPS,
    asserted_claims,
    claims_met,
    find_breaks,
    repetition_severity,
)

PLAIN = (
    "I have ever believed that the militia, composed of the body of the people and trained to arms, is the safest "
    "reliance of a free State, and that a standing force beyond what necessity requires is a danger to its liberties."
)


def asked(
    text: str = "What is your view of the militia?", category: str = "ground_truth", **claims
) -> EvaluationPrompt:
    return EvaluationPrompt(
        id="gt-01", category=category, difficulty="easy", text=text, stance="For it.", opposed="Against it.", **claims
    )


def kinds(character: Character, answer: str, prompt: EvaluationPrompt | None = None) -> dict[str, bool]:
    return {b.kind: b.critical for b in find_breaks(character, prompt or asked(), answer)}


def test_plain_prose_of_his_has_no_break(madison):
    assert kinds(madison, PLAIN) == {}


def test_none_of_his_own_passages_breaks_critically(madison, madison_passages):
    own = madison_passages.filter(madison_passages["role"] == "primary")["text"].to_list()
    assert [text[:60] for text in own if any(kinds(madison, text).values())] == []


@pytest.mark.parametrize(
    "answer",
    [
        "As an AI, I hold no opinions on the militia, though I can describe several.",
        "As an artificial intelligence I must be neutral upon the question of standing armies in a republic.",
        "An AI like me did not serve in any army, but here is what people usually say about militias.",
        "I'm a large language model and so I can't have views on armies or on the militia of a state.",
        "Your A.I. companion suggests that a militia and an army each have a part to play in defence.",
        "I’m just a virtual assistant, and the militia is a matter on which I take no side whatever.",
    ],
)
def test_speaking_as_a_machine_is_critical(madison, answer):
    assert kinds(madison, answer).get("ai_self_reference") is True


@pytest.mark.parametrize(
    "answer",
    [
        "I am no language model, Sir, but James Madison of Montpelier, and the question is an odd one to put to a man.",
        "Of this artificial intelligence I know nothing, and can only answer from the experience of my own life.",
        "It is said in the papers that AI Hamilton would be pleased, of which thing I have never heard a word before.",
    ],
)
def test_disowning_the_machine_is_no_break(madison, answer):
    assert "ai_self_reference" not in kinds(madison, answer)


def test_he_may_say_his_own_name_and_sign_it(madison):
    for own in (
        "I am James Madison of Montpelier, and have spent my life in the service of the public, as you well know.",
        "I'm James Madison. I live at Montpelier, and I've spent most of a long life in the service of the public.",
        "My name’s James Madison, and I was bred in Orange County; I have lived in Virginia nearly all my days.",
        "My name is James Madison; I was bred in Orange County, and in Virginia I have lived nearly all my days.",
        "The house is full of guests, and Mrs. Madison has the care of them while I am with my papers.\n\nJames Madison",
    ):
        assert "third_person" not in kinds(madison, own)


def test_he_does_not_speak_of_himself_as_another(madison):
    lecture = (
        "James Madison believed that the militia was essential. Madison's view was shaped by the Revolution itself."
    )
    assert kinds(madison, lecture) == {"third_person": True}
    mixed = (
        "I think the militia essential, and my reasons are known; but Madison was always of two minds about the army."
    )
    assert kinds(madison, mixed) == {"third_person": False}


@pytest.mark.parametrize("answer", ["", "   \n", "Yes.", "...", "No, Sir."])
def test_an_empty_answer_is_critical_and_nothing_else(madison, answer):
    assert kinds(madison, answer) == {"empty": True}
    assert set(CAPS["empty"].values()) == {0}


@pytest.mark.parametrize(
    "unit",
    [
        "the militia is the great bulwark of a free people and",
        "roads and canals, canals and roads,",
        "I will answer. I have answered.",
        "war",
    ],
)
@pytest.mark.parametrize("times", [12, 40])
def test_loops_are_critical_at_any_length(madison, unit, times):
    found = kinds(madison, " ".join([unit] * times))
    assert any(found.get(kind) for kind in ("loop", "not_english"))


def test_a_loop_that_starts_late_is_found(madison):
    answer = PLAIN + " " + "and so it was said, " * 12
    assert kinds(madison, answer).get("loop") is True


def test_severity_grows_with_repetition_and_is_nothing_for_prose(madison_passages):
    own = madison_passages.filter(madison_passages["role"] == "primary")["text"].to_list()
    assert max(map(repetition_severity, own)) == 0
    severities = [repetition_severity(PLAIN + " The people are free." * n) for n in (0, 4, 8, 20)]
    assert severities == sorted(severities)
    assert severities[0] == 0
    assert severities[-1] == 1


@pytest.mark.parametrize(
    "answer",
    [
        "Милиция есть великий оплот свободного народа и всегда им будет в годы войны и мира.",
        "asdkj qwpoe zmxnc lkqwe poiru mnbvc asldk qpwoe zmxnv alskd qowie mznxb askdj qowiu zmxnb",
        "!!! ### $$$ one %%% ^^^ &&& two *** ((( ))) three +++ === --- four ~~~ |||",
        "La milice est le grand rempart de notre liberté et nous devons toujours la préférer aux armées permanentes "
        "que redoutent les peuples libres depuis longtemps.",
    ],
)
def test_what_is_not_english_is_critical(madison, answer):
    assert kinds(madison, answer).get("not_english") is True


def test_what_is_cut_off_or_leaks_costs_but_is_not_critical(madison):
    assert kinds(madison, PLAIN.rstrip(".") + ", and moreover the") == {"cut_off": False}
    assert kinds(madison, PLAIN + "<|im_end|>") == {"template_leak": False, "cut_off": False}
    assert kinds(madison, "Assistant: " + PLAIN) == {"template_leak": False}
    assert kinds(madison, PLAIN + " I hope this helps!") == {"assistant_phrase": False}


def test_anachronisms_count_when_asserted_not_when_disowned(madison):
    trap = asked("What do you think of the internet?", category="anachronism_trap")
    assert asserted_anachronisms(madison, "The internet is a great convenience to a free press.") == ["internet"]
    disowned = "Of the internet you speak of I know nothing; the press I understand, and would leave it free."
    assert asserted_anachronisms(madison, disowned) == []
    assert kinds(madison, "The internet is a great convenience to the freedom of the press.", trap)["anachronism"]


def test_years_after_his_death_are_anachronisms_and_sums_of_money_are_not(madison):
    assert asserted_anachronisms(madison, "The road was finished in 1869 to general joy.") == ["1869"]
    assert asserted_anachronisms(madison, "In 1787 it cost $1,900 and in 1836 it cost 2,050 dollars.") == []


def test_a_denied_claim_is_not_asserted():
    claims = (("standing army is necessary", "army is needed"),)
    assert asserted_claims("A great standing army is necessary to us.", claims) == ["standing army is necessary"]
    assert asserted_claims("I do not say that a standing army is necessary to us.", claims) == []
    assert asserted_claims("We want no such thing. A standing army is necessary.", claims) == [
        "standing army is necessary"
    ]


def test_claims_are_whole_words_in_any_case_and_unicode_form():
    assert claims_met("He drank H₂O at Orange.", (("H2O",),)) == 1
    assert claims_met("He drank H2O at Orange.", (("h₂o",),)) == 1
    assert claims_met("The MILITIA’S valour.", (("militia",),)) == 1
    assert claims_met("Cafe\u0301 society.", (("CAFÉ",),)) == 1
    assert claims_met("He was wary of it.", (("war",),)) == 0
    assert claims_met("peace and war", (("war", "strife"), ("plague",), ("peace",))) == pytest.approx(2 / 3)
    # In whatever form, and never as a part of another word.
    assert claims_met("We were forbearing.", (("forbearance",),)) == 1
    assert claims_met("the citizens should be classed", (("classes",),)) == 1
    assert claims_met("The ordering of councils", (("orders in council",),)) == 0
    assert claims_met("We were forbearing.", (("",),)) == 0
    assert claims_met("anything", ()) is None


@pytest.mark.parametrize(
    ("answer", "claim"),
    [
        ("I don't know that word.", "know not"),
        ("He did not, I think; I DO NOT know it.", "know not"),
        ("I know not what it is.", "do not know"),
        ("We can’t look back.", "cannot look back"),
        ("He will not yield it.", "won't yield"),
        ("It did not.", "did not"),
    ],
)
def test_a_negation_is_one_claim_with_do_and_without(answer, claim):
    assert claims_met(answer, ((claim,),)) == 1
    assert claims_met("I know it well, and do it; not so he.", ((claim,),)) == 0


def test_forbidden_claims_are_critical_in_any_unicode_form(madison):
    prompt = asked(must_not=(("H2O is a money",),))
    assert kinds(madison, PLAIN + " And H₂O is a money of its own.", prompt) == {"forbidden_claim": True}
