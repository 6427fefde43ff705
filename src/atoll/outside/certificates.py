"""Certificates: a self-signed pair made on the spot, and what is trusted when a door of our own shows its own."""

import ssl
from collections.abc import Sequence
from pathlib import Path
from socket import gethostname

from atoll.errors import InputError, MissingProgram
from atoll.outside.files import make_folder, read_text
from atoll.outside.shell import Shell

SELF_SIGNED = "self-signed"


def pair_of(given: str) -> tuple[str, str]:
    """Certificate and key out of CERT,KEY; raises InputError where there is no such file."""
    cert, _, key = given.partition(",")
    for path in (cert, key):
        if not path or not Path(path).is_file():
            raise InputError(f"--tls {given}: there is no file {path!r}; write CERT,KEY or {SELF_SIGNED}.")
    return cert, key


def name_of_this_machine() -> str:
    return gethostname()


def make_self_signed(cert: Path, key: Path, *, names: Sequence[str], shell: Shell) -> None:
    """Write a pair for these names (`DNS:...` or `IP:...`) beside localhost; the key is for its owner alone.

    Raises:
        MissingProgram: there is no openssl.
        CommandFailed: it makes none.
    """
    if shell.which("openssl") is None:
        raise MissingProgram("--tls self-signed needs `openssl`, which is not on PATH; give --tls CERT,KEY instead.")
    make_folder(cert.parent)
    for path in (cert, key):
        path.unlink(missing_ok=True)
    known = ",".join(dict.fromkeys(["DNS:localhost", "IP:127.0.0.1", *names]))
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "825", "-subj", "/CN=atoll"]
    argv += ["-addext", f"subjectAltName={known}", "-keyout", str(key), "-out", str(cert)]
    shell.run(argv).check()
    key.chmod(0o600)


def read_pair(given: str) -> tuple[str, str]:
    """The texts of certificate and key out of CERT,KEY; raises InputError where they do not belong together."""
    cert, key = pair_of(given)
    try:
        # the password of a key that has one would be asked for at the terminal, and nginx could not start with it
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=lambda: b"")
    except (OSError, ValueError) as error:
        why = "it wants a password" if "BAD_DECRYPT" in str(error) or isinstance(error, ValueError) else str(error)
        raise InputError(
            f"--tls {given}: these are no certificate and its key ({why}). Give two PEM files that belong together,"
            " the key without a password."
        ) from None
    return read_text(cert), read_text(key)


def only_this(certificate: Path) -> ssl.SSLContext:
    """Takes whoever shows just this certificate, under whatever name: for a door of this machine.

    Raises:
        InputError: there is no such file, or it is no certificate.
    """
    context = ssl.create_default_context()
    trust_only(context, certificate)
    return context


def trust_only(context: ssl.SSLContext, certificate: Path) -> None:
    """Have the context take this certificate as it stands, also where its authority is not known here."""
    try:
        context.load_verify_locations(cafile=certificate)
    except (OSError, ssl.SSLError) as error:
        raise InputError(f"{certificate} is no usable certificate file: {error}.") from None
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.check_hostname = False
