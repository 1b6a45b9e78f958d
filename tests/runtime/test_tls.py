import ssl
import stat

import httpx
import pytest
from cryptography import x509
from http_server import served

from omni import cli
from runtime.tls import self_made


def names(path):
    made = x509.load_pem_x509_certificate(path.read_bytes())
    alternative = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(name.value) for name in alternative}


def test_a_certificate_is_made_once_and_again_for_a_new_name(tmp_path):
    certificate, key = self_made(tmp_path, "0.0.0.0")
    assert {"localhost", "127.0.0.1"} <= names(certificate)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    first = certificate.read_bytes()
    assert self_made(tmp_path, "0.0.0.0")[0].read_bytes() == first
    self_made(tmp_path, "omni.example")
    assert "omni.example" in names(certificate)
    assert certificate.read_bytes() != first


def test_a_broken_certificate_is_made_anew(tmp_path):
    certificate, key = self_made(tmp_path, "127.0.0.1")
    certificate.write_text("nonsense")
    self_made(tmp_path, "127.0.0.1")
    ssl.create_default_context().load_verify_locations(certificate)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)


def test_the_server_speaks_https_with_it(tmp_path):
    tls = self_made(tmp_path, "127.0.0.1")
    with served(tls=tls) as server:
        assert server.url.startswith("https:")
        trusting = ssl.create_default_context(cafile=str(tls[0]))
        assert httpx.get(f"{server.url}/health", verify=trusting).json()["status"] == "ready"


def test_half_a_pair_of_files_is_an_error(tmp_path, capsys, monkeypatch):
    file = tmp_path / "a.pem"
    file.write_text("x")
    monkeypatch.setattr("sys.argv", ["omni", "serve", "--ssl-cert", str(file)])
    with pytest.raises(SystemExit):
        cli.main()
    assert "belong together" in capsys.readouterr().err
