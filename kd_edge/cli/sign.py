"""The verb sign."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from kd_edge.cli.console import out
from kd_edge.errors import ConfigError, printable

app = typer.Typer()


@app.command(
    epilog="Examples:  kd-edge sign --new-key robot.key  |  kd-edge sign student.onnx --key robot.key  |  "
    "kd-edge sign student.onnx --key robot.key --bundle student.onnx.sig  |  "
    "kd-edge run --camera ir0 --model student.onnx --trust robot.pub"
)
def sign(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Artifact to sign.")] = None,
    key: Annotated[
        Path | None, typer.Option("--key", metavar="FILE", help="Private key: PEM, P-256, no password.")
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle", metavar="FILE", help="Write a detached signature here instead, which other tools can check."
        ),
    ] = None,
    new_key: Annotated[
        Path | None,
        typer.Option(
            "--new-key", metavar="FILE", help="Create a key pair: FILE (private) and the same name with .pub."
        ),
    ] = None,
) -> None:
    """Sign an artifact, so that robots run only your models: kd-edge run --trust PUBLIC_KEY.

    The signature is written into the file, in the format of the OpenSSF Model
    Signing specification v1.0. With --bundle the file is unchanged, and
    'model_signing verify key FILE --signature BUNDLE --public_key KEY' can
    also check it.
    """
    from kd_edge.artifact import SigningKey, load, new_keys, sign_beside
    from kd_edge.artifact import sign as sign_artifact

    if new_key is not None:
        if new_key.name.startswith("--"):  # an option: the value was forgotten
            raise ConfigError(f"--new-key {new_key}", "the name of a key", "for example --new-key robot.key")
        if file is not None or key is not None or bundle is not None:
            raise ConfigError("--new-key with a file to sign", "one after the other", "create the key first")
        public = new_keys(new_key)
        out.print(
            f"private key {escape(printable(str(new_key)))}: keep it to yourself\n"
            f"public key  {escape(printable(str(public)))}: for the robots (kd-edge run --trust)"
        )
        return
    if file is None or key is None:
        raise ConfigError(
            "no file" if file is None else "no key", "kd-edge sign FILE --key KEY", "kd-edge sign --new-key robot.key"
        )
    signing = SigningKey(key)
    if bundle is None:
        sign_artifact(file, signing)
    else:
        load(file)
        sign_beside(file, signing, bundle)
    where = file if bundle is None else bundle
    out.print(f"{escape(printable(str(where)))} signed with the key {signing.fingerprint[:16]}")
