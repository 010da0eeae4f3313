"""Addresses inside a private network: refused in every form, unless the manifest declares the host."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from foundry_pipeline.corpus.addresses import PrivateAddress, is_private, is_public, resolved
from foundry_pipeline.corpus.connecting import guarded_client
from foundry_pipeline.declarations.network import FetchLimits
from tests.unit.corpus.web import states, urls

INSIDE = (
    "127.0.0.1", "127.8.9.10", "127.1", "0", "2130706433", "0x7f000001", "0x7f.1", "017700000001", "0177.0.0.1", "10.0.0.7",
    "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.1", "192.0.2.1",
    "[::1]", "[::]", "[fe80::1]", "[fe80::1%25eth0]", "[fc00::1]", "[fd12:3456::1]", "[fec0::1]", "[ff02::1]",
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[::ffff:0:10.0.0.7]", "[64:ff9b::10.0.0.7]", "[64:ff9b:1::1]",
    "[2002:7f00:1::]", "[2002:a9fe:a9fe::1]", "[2001:0:4136:e378:8000:63bf:80ff:fffe]", "[2001:db8::1]",
    "localhost", "LOCALHOST.", "a.localhost", "printer.local", "metadata.google.internal", "nas.home.arpa",
)  # fmt: skip
OUTSIDE = ("example.org", "8.8.8.8", "134744072", "[2606:4700::6810:84e5]", "[::ffff:8.8.8.8]", "[2002:808:808::1]")


@pytest.mark.parametrize("host", INSIDE)
def test_every_way_to_write_an_inner_address(host):
    assert is_private(f"http://{host}/a")


@pytest.mark.parametrize("host", OUTSIDE)
def test_the_open_internet_is_not_inside(host):
    assert not is_private(f"http://{host}/a")


@given(st.integers(0, 2**32 - 1))
def test_an_address_is_judged_alike_in_every_form(number):
    dotted = socket.inet_ntoa(number.to_bytes(4, "big"))
    forms = (dotted, str(number), hex(number), f"[::ffff:{dotted}]", f"[64:ff9b::{dotted}]", dotted + ".")
    assert {is_private(f"http://{form}/") for form in forms} == {not is_public(dotted)}


def test_a_declared_source_inside_is_refused_until_its_host_is_declared(net):
    net.site.put("/letter.txt", "Dear Sir,")
    report = net.refresh(urls(net, "/letter.txt", fetch={"private_hosts": []}))
    assert "inside a private network" in report.outcomes[0].note
    assert "private_hosts: ['127.0.0.1']" in report.outcomes[0].note
    assert report.requests == 0
    assert net.site.asked() == []
    assert states(net.refresh(urls(net, "/letter.txt"))) == {"letter": "new"}


@pytest.mark.parametrize(
    "inside", ["http://169.254.169.254/latest", "http://[::1]:{port}/", "http://2130706433:{port}/"]
)
def test_a_redirect_is_judged_anew(net, inside):
    net.site.put("/secret.txt", "SECRET")
    net.site.fail("/letter.txt", {"location": inside.replace("{port}", str(net.site.port)) + "/secret.txt"})
    report = net.refresh(urls(net, "/letter.txt"))
    assert "a redirect leads to" in report.outcomes[0].note
    assert report.requests == 1


def test_a_name_that_means_this_machine_is_refused(net, monkeypatch):
    net.site.put("/letter.txt", "Dear Sir,")
    answers = lookups(monkeypatch, {"archive.example.org": ["127.0.0.1"]})
    manifest = net.manifest(
        {
            "kind": "url",
            "documents": {"a": {"url": f"http://archive.example.org:{net.site.port}/letter.txt", "date": "1788"}},
        }
    )
    report = net.refresh(manifest)
    assert "archive.example.org is 127.0.0.1" in report.outcomes[0].note
    assert net.site.asked() == []
    assert answers == ["archive.example.org"]
    connector = {"kind": "url", "documents": dict(manifest.connector.documents)}
    declared = net.manifest({**connector, "fetch": {"private_hosts": ["Archive.example.org."]}})
    assert states(net.refresh(declared)) == {"a": "new"}


def test_what_is_connected_to_is_what_was_judged(monkeypatch):
    """A name that answers otherwise the second time: it is not asked a second time."""
    answers = lookups(monkeypatch, {"rebind.example.org": ["8.8.8.8"]}, then={"rebind.example.org": ["127.0.0.1"]})
    connected: list[tuple[str, int]] = []

    def connect(address, *_, **__):
        connected.append(address)
        raise ConnectionRefusedError("not in a test")

    monkeypatch.setattr(socket, "create_connection", connect)
    import httpx2

    with guarded_client(allowed=(), timeout=5, headers={}) as client, pytest.raises(httpx2.ConnectError):
        client.get("http://rebind.example.org/")
    assert connected == [("8.8.8.8", 80)]
    assert answers == ["rebind.example.org"]


def test_one_inner_address_among_public_ones_is_enough(monkeypatch):
    lookups(monkeypatch, {"both.example.org": ["8.8.8.8", "10.0.0.7"]})
    with pytest.raises(PrivateAddress, match=r"both\.example\.org is 10\.0\.0\.7"):
        resolved("both.example.org", 443)
    assert resolved("both.example.org", 443, allowed=("both.example.org",)) == ["8.8.8.8", "10.0.0.7"]


def test_before_a_proxy_names_are_looked_up_here(net, monkeypatch):
    lookups(monkeypatch, {"archive.example.org": ["10.0.0.7"]})
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{net.site.port}")
    report = net.refresh(
        net.manifest({"kind": "url", "documents": {"a": {"url": "http://archive.example.org/a.txt", "date": "1788"}}})
    )
    assert "archive.example.org is 10.0.0.7" in report.outcomes[0].note
    assert net.site.asked() == []


@pytest.mark.parametrize("host", ["http://10.0.0.7", "10.0.0.7:80", "*", "*.lan", "10.0.0.0/8", "", "a b"])
def test_only_hosts_can_be_declared(host):
    with pytest.raises(ValidationError, match="a host by itself"):
        FetchLimits(private_hosts=(host,))
    assert FetchLimits(private_hosts=("Mirror.LAN.", "[::1]")).private_hosts == ("mirror.lan", "::1")


def lookups(monkeypatch, names: dict[str, list[str]], then: dict[str, list[str]] | None = None) -> list[str]:
    """The system's resolver, for some names; returns what it was asked."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def answer(host, port, *args, **kwargs):
        table = then if then is not None and host in asked else names
        if host not in table:
            return real(host, port, *args, **kwargs)
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in table[host]]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return asked
