"""Make the story's data, the same for the same seed: customers nobody is, weights nobody trained."""

from __future__ import annotations

import csv
import json
import random
import struct
from pathlib import Path

BUCKET = "training"
CUSTOMERS = "customers.csv"
COLUMNS = ("id", "name", "email", "phone", "card", "country", "amount", "fraud")
MASKED = ("email", "phone", "card")
WEIGHTS_BUCKET = "models"
WEIGHTS = tuple(f"detector-{number}.safetensors" for number in range(1, 9))

_GIVEN = ("Ada", "Bruno", "Chen", "Divya", "Emeka", "Fatima", "Goran", "Hana", "Ivo", "Jana", "Kofi", "Lena")
_FAMILY = (
    "Abel",
    "Brandt",
    "Costa",
    "Dahl",
    "Eze",
    "Fuchs",
    "Garcia",
    "Horn",
    "Ito",
    "Jovic",
    "Klein",
    "Lund",
)
_COUNTRIES = ("DE", "FR", "IN", "JP", "NG", "PT", "US")
_ROWS = 500
_TENSOR = 16_384


def write_store(directory: Path, seed: int = 20_261_123) -> None:
    """Write the two buckets under `directory`: 500 customers, eight model files of 64 KiB."""
    source = random.Random(seed)  # noqa: S311 -- reproducible, not secret
    training, models = directory / BUCKET, directory / WEIGHTS_BUCKET
    training.mkdir(parents=True)
    models.mkdir(parents=True)
    with (training / CUSTOMERS).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(_customer(source, number) for number in range(1, _ROWS + 1))
    for name in WEIGHTS:
        (models / name).write_bytes(_weights(source))


def luhn_digit(digits: str) -> str:
    """Return the check digit that makes a card number valid (ISO/IEC 7812-1)."""
    doubled = [int(digit) * (2 if place % 2 == 0 else 1) for place, digit in enumerate(reversed(digits))]
    return str(-sum(value - 9 if value > 9 else value for value in doubled) % 10)  # noqa: PLR2004 -- two digits


def _customer(source: random.Random, number: int) -> tuple[object, ...]:
    given, family = source.choice(_GIVEN), source.choice(_FAMILY)
    # example.com and the 555-01xx numbers belong to nobody; 400000 is no issued card range.
    email = f"{given}.{family}.{number}@example.com".lower()
    phone = f"+1-555-01{source.randrange(100):02d}"
    body = "400000" + "".join(str(source.randrange(10)) for _ in range(9))
    amount = f"{source.randrange(100, 500_000) / 100:.2f}"
    fraud = int(source.random() < 0.06)  # noqa: PLR2004 -- a plausible share
    card = body + luhn_digit(body)
    return (number, f"{given} {family}", email, phone, card, source.choice(_COUNTRIES), amount, fraud)


def _weights(source: random.Random) -> bytes:
    """Return a small file in the safetensors format: length, header, one tensor."""
    tensor = struct.pack(f"<{_TENSOR}f", *(source.gauss(0, 0.02) for _ in range(_TENSOR)))
    header = {"w": {"dtype": "F32", "shape": [_TENSOR], "data_offsets": [0, len(tensor)]}}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + tensor
