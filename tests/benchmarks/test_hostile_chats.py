"""A short form of the campaign of hostile conversations."""

from benchmarks.hostile_chats import campaign


def test_conversations_of_control_tokens_and_their_pieces():
    assert campaign(150, seed=1) > 150
