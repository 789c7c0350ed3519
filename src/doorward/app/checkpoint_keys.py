"""The keys of the log's checkpoints: from the custodian, each endorsed by the one before."""

from __future__ import annotations

import msgspec
from cryptography.hazmat.primitives import serialization

from doorward.audit.head import CheckpointKey
from doorward.audit.signature import Endorsement, endorsed_bytes
from doorward.identity.custody import Custodian, KeyUse


class CheckpointKeys:
    """Give the custodian's newest checkpoint key; it is read again only after a rotation."""

    def __init__(self, custodian: Custodian) -> None:
        """Take the custodian."""
        self._custodian = custodian
        self._read: tuple[int, CheckpointKey] | None = None

    def newest(self) -> CheckpointKey:
        """Return the key that signs now."""
        generation = self._custodian.generation(KeyUse.CHECKPOINT)
        if self._read is None or self._read[0] != generation:
            self._read = (generation, self._made(generation))
        return self._read[1]

    def _made(self, generation: int) -> CheckpointKey:
        key = self._custodian.ed25519(KeyUse.CHECKPOINT, generation)
        public = key.public_key()
        return CheckpointKey(
            sign=key.sign,
            name=public.public_bytes_raw().hex(),
            pem=self._pem(generation),
            endorsements=msgspec.json.encode(self._endorsements(generation)),
            earlier=tuple(self._pem(number) for number in range(1, generation)),
        )

    def _pem(self, generation: int) -> bytes:
        return (
            self._custodian.ed25519(KeyUse.CHECKPOINT, generation)
            .public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )

    def _endorsements(self, newest: int) -> list[Endorsement]:
        """Return the chain up to the newest key; a distrusted key endorses nothing."""
        rotations = self._custodian.rotations(KeyUse.CHECKPOINT)
        chain: list[Endorsement] = []
        for number, rotation in enumerate(rotations[: newest - 1], start=2):
            if rotation.distrusts:
                chain.clear()
                continue
            before = self._custodian.ed25519(KeyUse.CHECKPOINT, number - 1)
            key = self._custodian.ed25519(KeyUse.CHECKPOINT, number).public_key()
            signature = before.sign(endorsed_bytes(key)).hex()
            chain.append(Endorsement(key.public_bytes_raw().hex(), signature))
        return chain
