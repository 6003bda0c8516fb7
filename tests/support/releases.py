"""What releases are made of in tests: keys, certificates, exports, and measurements nobody made."""

import datetime
import json
from dataclasses import replace
from pathlib import Path

import torch
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID
from safetensors.torch import load_file, save_file

from malmoi.provenance import checkpoint_digest, record_files
from malmoi.speed import Speed
from quant.export import export
from quant.fidelity import (
    AnswerRates,
    Answers,
    Fidelity,
    Prediction,
    Score,
    Size,
    Speeds,
    TextFidelity,
    TokenGroup,
)
from quant.recipe import find_bnb

Key = ec.EllipticCurvePrivateKey


def write_keys(directory: Path, curve: ec.EllipticCurve | None = None) -> tuple[Path, Path]:
    """A new private key and its public key, in PEM files."""
    key = ec.generate_private_key(curve or ec.SECP256R1())
    directory.mkdir(exist_ok=True)
    private, public = directory / "release.key", directory / "release.pub"
    private.write_bytes(pem(key))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def pem(key: Key) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def write_certified_key(directory: Path) -> tuple[Path, Path]:
    """A private key with its certificate in one PEM file, and the authority that issued it in another."""
    authority, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root = certificate("authority", authority, issuer="authority", issuer_key=authority)
    leaf = certificate("publisher", key, issuer="authority", issuer_key=authority)
    directory.mkdir(exist_ok=True)
    private, public = directory / "release.pem", directory / "authority.pem"
    private.write_bytes(pem(key) + leaf.public_bytes(Encoding.PEM))
    public.write_bytes(root.public_bytes(Encoding.PEM))
    return private, public


def certificate(name: str, key: Key, *, issuer: str, issuer_key: Key) -> x509.Certificate:
    """One for signing, valid from yesterday to tomorrow; its own issuer's if the names are the same."""
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    is_authority = name == issuer
    usage = dict.fromkeys(
        (
            *("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
            *("crl_sign", "encipher_only", "decipher_only"),
        ),
        False,
    )
    subject, issued_by = (
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)]) for common in (name, issuer)
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issued_by)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=True, key_cert_sign=is_authority, **usage), critical=True
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
        .sign(issuer_key, hashes.SHA256())
    )


def create_bnb_export(parent: Path, out: Path) -> Path:
    """The parent in nf4, as malmoi-quant exports it."""
    export(parent, out, recipe=find_bnb("release"))
    return out


def pack_zeros(parent: Path, out: Path, *, bits: int = 4, group_size: int = 64) -> Path:
    """A GPTQ checkpoint of nothing but zeros, each tensor of the shape that the format gives it."""
    out.mkdir(exist_ok=True)
    tensors = {}
    for name, tensor in load_file(parent / "model.safetensors").items():
        layer = name.removesuffix(".weight")
        if not layer.endswith("_proj"):
            tensors[name] = tensor
            continue
        outputs, inputs = tensor.shape
        groups = 1 if group_size == -1 else inputs // group_size
        tensors[f"{layer}.qweight"] = torch.zeros(inputs * bits // 32, outputs, dtype=torch.int32)
        tensors[f"{layer}.qzeros"] = torch.zeros(groups, outputs * bits // 32, dtype=torch.int32)
        tensors[f"{layer}.scales"] = torch.zeros(groups, outputs, dtype=torch.float16)
        tensors[f"{layer}.g_idx"] = torch.zeros(inputs, dtype=torch.int32)
    save_file(tensors, out / "model.safetensors")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (out / name).write_bytes((parent / name).read_bytes())
    say_packing(out, bits=bits, group_size=group_size)
    return out


def say_packing(export: Path, **settings: object) -> None:
    """Writes the settings into config.json."""
    config = json.loads((export / "config.json").read_text())
    defaults = {"quant_method": "gptq", "bits": 4, "group_size": 64, "sym": True, "desc_act": False}
    config["quantization_config"] = defaults | settings
    (export / "config.json").write_text(json.dumps(config))


def good_fidelity(parent: Path | None = None, exported: Path | None = None) -> Fidelity:
    """Numbers that any gate lets pass, of these two checkpoints."""
    digests = [checkpoint_digest(record_files(path)) if path else "0" * 64 for path in (parent, exported)]
    settings = json.loads((exported / "config.json").read_text())["quantization_config"] if exported else {}
    group = TokenGroup(
        num_tokens=1_000,
        kl_mean=0.01,
        kl_p99=0.1,
        top1_agreement=0.97,
        parent_bits_per_token=4.0,
        export_bits_per_token=4.01,
    )
    text = TextFidelity(
        num_tokens=30_000,
        num_bytes=120_000,
        parent=Prediction(bits_per_byte=1.0, perplexity=16.0),
        export=Prediction(bits_per_byte=1.01, perplexity=16.2),
        kl_mean=0.01,
        kl_p99=0.1,
        top1_agreement=0.97,
        by_token={"old": group, "new": group, "byte": None},
    )
    rates = AnswerRates(eos_rate=0.99, loop_rate=0.01)
    score = Score(metric="macro F1", parent=0.61, export=0.6, num=1404)
    speed = Speed(tokens_per_second=100.0, characters_per_second=180.0)
    return Fidelity(
        parent=digests[0],
        export=digests[1],
        method=settings.get("quant_method", "gptq"),
        settings=settings,
        text={"korean": text, "english": replace(text, by_token={"old": group, "new": None, "byte": group})},
        answers=Answers(num_prompts=64, parent=rates, export=rates),
        kobest={"boolq": score, "copa": replace(score, export=0.62)},
        size=Size(
            parent_disk_bytes=4 << 20,
            export_disk_bytes=2 << 20,
            parent_memory_bytes=5 << 20,
            export_memory_bytes=3 << 20,
        ),
        speed=Speeds(parent=speed, export=speed),
        data={"korean": "1" * 64},
        seed=3,
        machine="2 cores of one CPU",
        libraries={"torch": "2.13.0"},
        command="malmoi-quant check",
    )


def write_report(directory: Path, fidelity: Fidelity) -> Path:
    """What a check leaves behind."""
    directory.mkdir()
    (directory / "fidelity.json").write_text(json.dumps(fidelity.to_record()))
    (directory / "fidelity.png").write_bytes(b"\x89PNG")
    return directory
