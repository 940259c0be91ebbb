import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sleap_rtc_plugin.protocol.errors import LocalProtocolError, PairingFailed
from sleap_rtc_plugin.transport.pairing_cipher import PairingCipher

WORDS = ("copper", "otter", "lagoon")
Words = tuple[str, ...]
TEXT = "sleap-session:abc"


def both(
    worker_words: Words = WORDS, claimer_words: Words = WORDS
) -> tuple[PairingCipher, PairingCipher]:
    worker = PairingCipher("worker", worker_words)
    claimer = PairingCipher("claimer", claimer_words)
    worker.receive(claimer.message)
    claimer.receive(worker.message)
    return worker, claimer


def test_the_same_code_hands_the_string_over() -> None:
    worker, claimer = both()
    worker.check(claimer.prove())
    sealed = worker.seal(TEXT)
    assert TEXT.encode() not in sealed
    assert claimer.unseal(sealed) == TEXT


@pytest.mark.parametrize(
    "other",
    [
        ("copper", "otter", "lantern"),
        ("otter", "copper", "lagoon"),
        ("copper-otter", "lagoon", ""),
    ],
)
def test_another_code_proves_and_opens_nothing(other: Words) -> None:
    worker, claimer = both(claimer_words=other)
    with pytest.raises(PairingFailed, match="other words"):
        worker.check(claimer.prove())
    with pytest.raises(PairingFailed, match="not sealed"):
        claimer.unseal(worker.seal(TEXT))


def test_somebody_in_between_who_does_not_know_the_code_gets_nothing() -> None:
    guess = ("zebra", "zebra", "zebra")
    worker, claimer = PairingCipher("worker", WORDS), PairingCipher("claimer", WORDS)
    to_worker = PairingCipher("claimer", guess)
    to_claimer = PairingCipher("worker", guess)
    worker.receive(to_worker.message)
    to_worker.receive(worker.message)
    claimer.receive(to_claimer.message)
    to_claimer.receive(claimer.message)
    for proof in (to_worker.prove(), claimer.prove(), b"", bytes(32)):
        with pytest.raises(PairingFailed):
            worker.check(proof)
    with pytest.raises(PairingFailed):
        claimer.unseal(to_claimer.seal("sleap-session:evil"))


def test_one_code_gives_other_keys_each_time() -> None:
    assert both()[0].seal(TEXT) != both()[0].seal(TEXT)


@settings(max_examples=50)
@given(st.binary(max_size=200))
def test_a_hostile_message_is_refused(message: bytes) -> None:
    with pytest.raises(PairingFailed):
        PairingCipher("worker", WORDS).receive(message)


def test_a_message_sent_back_is_refused() -> None:
    worker = PairingCipher("worker", WORDS)
    with pytest.raises(PairingFailed):
        worker.receive(worker.message)
    claimer = PairingCipher("claimer", WORDS)
    with pytest.raises(PairingFailed):
        claimer.receive(b"A" + claimer.message[1:])


@given(st.data())
def test_a_bent_seal_is_refused(data: st.DataObject) -> None:
    worker, claimer = both()
    sealed = bytearray(worker.seal(TEXT))
    place = data.draw(st.integers(0, len(sealed) - 1))
    sealed[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(PairingFailed):
        claimer.unseal(bytes(sealed))


def test_it_may_be_used_once_and_in_order() -> None:
    worker = PairingCipher("worker", WORDS)
    with pytest.raises(LocalProtocolError):
        worker.prove()
    worker.receive(PairingCipher("claimer", WORDS).message)
    with pytest.raises(LocalProtocolError):
        worker.receive(PairingCipher("claimer", WORDS).message)
