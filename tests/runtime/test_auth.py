import pytest

from omni.errors import InputError
from runtime.auth import AuthError, Identity, Keys, bearer, read_keys


def test_without_keys_everybody_is_let_in():
    assert Keys().identify(None) == Identity()
    assert Keys().identify("none") == Identity()


def test_a_key_names_its_owner_without_telling_the_key():
    keys = Keys(["alpha", "beta"])
    owners = {keys.identify(key).owner for key in ("alpha", "beta")}
    assert len(owners) == 2
    assert owners == {Keys([key]).identify(key).owner for key in ("alpha", "beta")}
    assert not any("alpha" in str(value) for value in vars(keys).values())


@pytest.mark.parametrize("token", [None, "", "alph", "alphaa", "beta", "ek_none"])
def test_what_is_no_key_is_refused(token):
    with pytest.raises(AuthError):
        Keys(["alpha"]).identify(token)


def test_a_secret_carries_its_session_and_its_owner_until_it_ends():
    clock = [1000.0]
    keys = Keys(["alpha"], clock=lambda: clock[0])
    owner = keys.identify("alpha").owner
    value, expires_at = keys.issue({"instructions": "x"}, 60, owner)
    assert expires_at == 1060
    found = keys.identify(value, realtime=True)
    assert found == Identity(owner, {"instructions": "x"})
    with pytest.raises(AuthError):
        keys.identify(value)
    clock[0] = 1060.0
    with pytest.raises(AuthError, match="expired"):
        keys.identify(value, realtime=True)
    assert not any(value in str(held) for held in vars(keys).values())


def test_the_key_is_found_in_the_header_or_the_subprotocol():
    assert bearer({"authorization": "Bearer abc"}) == "abc"
    assert bearer({"authorization": "bearer  abc "}) == "abc"
    assert bearer({"authorization": "Basic abc"}) is None
    assert bearer({}, ["realtime", "openai-insecure-api-key.abc"]) == "abc"
    assert bearer({}, ["realtime"]) is None


def test_keys_come_from_options_file_and_environment(tmp_path, monkeypatch):
    file = tmp_path / "keys"
    file.write_text("# ours\n  one \n\ntwo\n")
    monkeypatch.setenv("OMNI_API_KEYS", "three, four,")
    assert read_keys(["five"], file) == ("five", "three", "four", "one", "two")
    assert read_keys([], None) == ("three", "four")
    for wrong in ("two words", "ek_secret", "käse"):
        with pytest.raises(InputError) as refused:
            read_keys([wrong], None)
        assert wrong not in str(refused.value)
    with pytest.raises(InputError, match="cannot read"):
        read_keys([], tmp_path / "missing")
