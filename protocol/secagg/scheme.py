"""The mathematics that a network's parameters choose, put together (docs/PROTOCOL.md sections 2, 4, 5)."""

from __future__ import annotations

from functools import lru_cache

from attrs import frozen

from protocol.algebra import field as fp
from protocol.algebra.field import FieldError, FieldVec
from protocol.codec import digest
from protocol.context import RoundContext
from protocol.params import CommitmentScheme, Points, ProtocolParams, Setup
from protocol.secagg.commitment import Commitment, LatticeCommitment, SingularCommitment
from protocol.secagg.encoding import FixedPoint, value_bits
from protocol.secagg.interpolation import Interpolation
from protocol.secagg.security import check_lattice_parameters

_NO_KEY = bytes(fp.SEED_BYTES)


class SchemeError(ValueError):
    """A network's parameters do not give a scheme, or its singular matrices lack their seed."""


class UploadError(ValueError):
    """Bytes that are no upload, sum or commitment of this network; the message says why."""


@frozen
class Scheme:
    """Encoding, interpolation and commitment of one network; widths and sizes are derived, never chosen."""

    fixed: FixedPoint
    interpolation: Interpolation
    commitment: Commitment

    @property
    def length(self) -> int:
        """Coordinates of one update as it is sent, k of docs/PROTOCOL.md section 2."""
        return self.commitment.length

    @property
    def masked_length(self) -> int:
        """Coordinates under masks: the update, then the commitment's opening randomness."""
        return self.commitment.length + self.commitment.extra()

    @property
    def coefficients_shape(self) -> tuple[int, int]:
        """(G, M + 1), the shape of B_i and of B."""
        return self.interpolation.coefficients_shape(self.masked_length)

    @property
    def upload_bytes(self) -> int:
        """The exact size of an upload, and of the sum of uploads."""
        groups, terms = self.coefficients_shape
        return fp.ELEMENT_BYTES * groups * terms

    @property
    def commitment_bytes(self) -> int:
        """The exact size of a published commitment."""
        return fp.ELEMENT_BYTES * self.commitment.size

    def read_coefficients(self, data: bytes, what: str) -> FieldVec:
        """B_i or B, uint32[G, M+1], from bytes of anyone. `UploadError` on a bad size or a value >= p."""
        groups, terms = self.coefficients_shape
        return _elements(data, groups * terms, what).reshape(groups, terms)

    def read_commitment(self, data: bytes, what: str) -> FieldVec:
        """A published commitment, uint32[size]. `UploadError` as in `read_coefficients`."""
        return _elements(data, self.commitment.size, what)


def _elements(data: bytes, count: int, what: str) -> FieldVec:
    try:
        return fp.from_bytes(data, count, what)
    except FieldError as error:
        raise UploadError(str(error)) from error


@lru_cache(maxsize=16)
def build_scheme(params: ProtocolParams, network: bytes, u_seed: bytes | None) -> Scheme:
    """The scheme of a network. Its widths follow from the most proposers a round may have.

    `u_seed` seeds the singular matrices: the trusted dealer's secret where there is a dealer, otherwise
    public and derived from the network. `SchemeError` where a dealer's network lacks it;
    `protocol.secagg.security.SecurityError` for a lattice outside docs/PROTOCOL.md section 5.
    """
    bits = value_bits(params.n_proposers)
    length = params.sent_dimension
    commitment: Commitment
    if params.commitment is CommitmentScheme.LATTICE:
        check_lattice_parameters(length, bits, params.n_proposers)
        commitment = LatticeCommitment(network=network, length=length, bits=bits)
    else:
        if u_seed is None and params.setup is Setup.DEALER:
            raise SchemeError("u_seed: a network with a dealer needs the dealer's singular matrices")
        commitment = SingularCommitment(
            u_seed=digest("u", network) if u_seed is None else u_seed,
            length=length,
            group_size=params.singular_group_size,
            rank=params.singular_rank,
            bits=bits,
        )
    return Scheme(
        fixed=FixedPoint(bits=bits, clip=params.clip),
        interpolation=Interpolation(
            "roots" if params.points is Points.ROOTS else "arbitrary", params.group_size
        ),
        commitment=commitment,
    )


def scheme_of(context: RoundContext) -> Scheme:
    """The scheme of a round; errors as in `build_scheme`."""
    return build_scheme(context.params, context.network, context.u_seed)


def commitment_digest(published: bytes) -> bytes:
    """What a `Contribution` names its commitment by: 32 bytes."""
    return digest("commitment", published)


def check_upload(params: ProtocolParams, data: bytes) -> None:
    """What a receipt asserts of an upload: its size, and that every value is below p. Else `UploadError`."""
    build_scheme(params, _NO_KEY, _NO_KEY).read_coefficients(data, "upload")


def check_commitment(params: ProtocolParams, data: bytes) -> None:
    """The form of a published commitment, which says nothing of its content. Else `UploadError`."""
    build_scheme(params, _NO_KEY, _NO_KEY).read_commitment(data, "commitment")
