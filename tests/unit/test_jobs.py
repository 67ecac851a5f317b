"""Rounds through `jobs.run` in which somebody cheats, and what the jobs make of it."""

from __future__ import annotations

import numpy as np
import pytest
from attrs import evolve

from protocol import jobs
from protocol.algebra import field as fp
from protocol.blob import blob_digest
from protocol.checkpoint import (
    Checkpoint,
    CheckpointError,
    checkpoint_bytes,
    decode_checkpoint,
    encode_checkpoint,
    initial_checkpoint,
)
from protocol.codec import digest
from protocol.context import JobError
from protocol.jobs import AggregateResult, CheckUploadJob, CheckUploadResult, ContributeResult, VerifyJob
from protocol.params import (
    Challenge,
    CommitmentScheme,
    Masking,
    Points,
    ProtocolParams,
    Setup,
    Sparsify,
    hardened,
    vcdfl,
)
from protocol.secagg.commitment import SingularCommitment, blind
from protocol.secagg.masking import MaskError, pair_seed
from protocol.secagg.pairs import own_pair_seeds
from protocol.secagg.scheme import (
    SchemeError,
    UploadError,
    build_scheme,
    check_commitment,
    check_upload,
    commitment_digest,
    scheme_of,
)
from protocol.secagg.verification import Verdict
from protocol.secrets import RoundSecrets
from protocol.sharing import ShareKind, fault_holds
from sim.bench.rehearsal import Rehearsal, rehearse, whole_round

D = 24
N = 5
ALL = (0, 1, 2, 3, 4)
SURVIVORS = (0, 1, 3, 4)

HARDENED = hardened(dimension=D, n_proposers=N, n_voters=1)
VCDFL = vcdfl(dimension=D, n_proposers=N, n_voters=1)
PROFILES = pytest.mark.parametrize("params", [HARDENED, VCDFL], ids=["hardened", "vcdfl"])


def updates() -> dict[int, np.ndarray]:
    return {i: np.linspace(-0.5, 0.1 * i, D, dtype=np.float32) for i in ALL}


def finished(
    params: ProtocolParams, contributors: tuple[int, ...] = SURVIVORS
) -> tuple[Rehearsal, AggregateResult, VerifyJob]:
    round_ = rehearse(params, N, b"jobs")
    claim, job = whole_round(round_, ALL, contributors, updates(), {i: 100 + i for i in ALL})
    return round_, claim, job


def with_sum(round_: Rehearsal, job: VerifyJob, data: bytes) -> VerifyJob:
    return evolve(job, sum_digest=round_.put(data))


def recontribute(round_: Rehearsal, proposer: int, upload: bytes, commitment: bytes | None = None) -> None:
    """Put another upload, or commitment, in the place of a proposer's contribution."""
    old = round_.contributions[proposer]
    round_.contributions[proposer] = ContributeResult(
        upload,
        round_.put(upload),
        old.commitment if commitment is None else commitment,
        b"",
    )


def shifted(data: bytes, place: int, by: int = 1) -> bytes:
    values = np.frombuffer(data, dtype="<u4").copy()
    values[place] = (int(values[place]) + by) % fp.P
    return values.tobytes()


# -- honest rounds ---------------------------------------------------------------------------------


@PROFILES
def test_jobs_are_functions_of_their_arguments(params: ProtocolParams) -> None:
    first, second = finished(params), finished(params)
    assert first[0].dealings == second[0].dealings
    assert first[0].contributions == second[0].contributions
    assert first[1:] == second[1:]
    assert first[0].verify(first[2]) == second[0].verify(second[2])


@PROFILES
def test_an_honest_round_is_trusted_and_moves_the_model(params: ProtocolParams) -> None:
    round_, claim, job = finished(params)
    assert claim.faults == ()
    result = round_.verify(job)
    assert result.verdict is Verdict.TRUSTED
    assert result.model_digest == blob_digest(result.model) != job.model_digest
    outcome = round_.dispute(round_.dispute_job(job))
    assert outcome.sum_matches
    assert outcome.guilty_checks == ()
    assert outcome.repaired == result


def mixed(**choices: object) -> ProtocolParams:
    return evolve(HARDENED, **choices)


@pytest.mark.parametrize(
    "params",
    [
        mixed(commitment=CommitmentScheme.SINGULAR),
        mixed(commitment=CommitmentScheme.SINGULAR, blinded=False, challenge=Challenge.CLEAR),
        mixed(masking=Masking.SINGLE),
        mixed(points=Points.ARBITRARY, group_size=16),
        evolve(VCDFL, commitment=CommitmentScheme.LATTICE, blinded=True, challenge=Challenge.SHARED),
        evolve(VCDFL, masking=Masking.DOUBLE, points=Points.ROOTS, group_size=8),
        evolve(VCDFL, setup=Setup.KEY_AGREEMENT),
    ],
)
def test_every_choice_combines_with_the_others(params: ProtocolParams) -> None:
    round_, _, job = finished(params)
    assert round_.verify(job).verdict is Verdict.TRUSTED


def test_masks_run_over_a_regular_graph_above_256_proposers() -> None:
    count, dropped = 260, {3, 77}
    params = evolve(
        vcdfl(dimension=4, n_proposers=count, n_voters=1), setup=Setup.KEY_AGREEMENT, points=Points.ROOTS
    )
    round_ = rehearse(params, count, b"graph")
    round_.pin_sharers(range(count))
    members = [i for i in range(count) if i not in dropped]
    update = np.full(4, 0.25, dtype=np.float32)
    for member in members:
        round_.contribute(member, update, 1)
    degrees = {len(own_pair_seeds(round_.context, i, round_.secrets[i].mask_key)) for i in (0, 9, 259)}
    assert len(degrees) == 1
    assert degrees.pop() < count - 1
    scheme = scheme_of(round_.context)
    total = np.zeros(scheme.coefficients_shape, dtype=np.uint32)
    for member in members:
        upload = round_.contributions[member].upload
        fp.accumulate(total, scheme.read_coefficients(upload, "upload"))
    data = fp.to_bytes(total)
    secrets = tuple((i, round_.secrets[i].mask_secret) for i in sorted(dropped))
    claim = AggregateResult(data, round_.put(data), (), secrets)
    assert round_.verify(round_.verify_job(members, claim)).verdict is Verdict.TRUSTED


# -- aggregators that cheat ------------------------------------------------------------------------


@PROFILES
def test_lazy_aggregator_drops_a_contribution(params: ProtocolParams) -> None:
    round_, _, honest = finished(params)
    scheme = scheme_of(round_.context)
    total = np.zeros(scheme.coefficients_shape, dtype=np.uint32)
    for member in SURVIVORS[1:]:
        fp.accumulate(total, scheme.read_coefficients(round_.contributions[member].upload, "upload"))
    job = with_sum(round_, honest, fp.to_bytes(total))
    result = round_.verify(job)
    # The masks that lack their counterpart leave random residues, out of bounds too; that is not the reading.
    assert (result.eq18, result.eq19, result.bounded) == (False, False, False)
    assert result.verdict is Verdict.LAZY_AGGREGATOR
    assert result.model_digest == job.model_digest
    outcome = round_.dispute(round_.dispute_job(job))
    assert not outcome.sum_matches
    assert outcome.guilty_checks == ()
    assert outcome.repaired == round_.verify(honest)
    assert (outcome.sum, outcome.sum_digest) == (round_.read(honest.sum_digest), honest.sum_digest)


@PROFILES
def test_forging_aggregator_adds_to_the_sum(params: ProtocolParams) -> None:
    round_, claim, honest = finished(params)
    # A constant added to the coefficients of one group moves its every value, and its hidden point.
    job = with_sum(round_, honest, shifted(claim.sum, 0, 5))
    result = round_.verify(job)
    assert result.verdict is Verdict.LAZY_AGGREGATOR
    assert result.model_digest == job.model_digest
    outcome = round_.dispute(round_.dispute_job(job))
    assert not outcome.sum_matches
    assert outcome.repaired.verdict is Verdict.TRUSTED
    assert outcome.repaired == round_.verify(honest)


@PROFILES
def test_colluding_aggregator_that_knows_z_passes_eq_18_only(params: ProtocolParams) -> None:
    round_, claim, honest = finished(params)
    scheme = scheme_of(round_.context)
    points = scheme.interpolation.points_from(round_.z_root, scheme.masked_length)
    groups, terms = scheme.coefficients_shape
    # delta(x) = x - z vanishes at the hidden point and nowhere else.
    coefficients = scheme.read_coefficients(claim.sum, "sum")
    coefficients[0, 0] = (int(coefficients[0, 0]) - int(points.hidden[0])) % fp.P
    coefficients[0, 1] = (int(coefficients[0, 1]) + 1) % fp.P
    assert (groups, terms) == coefficients.shape
    job = with_sum(round_, honest, fp.to_bytes(coefficients))
    result = round_.verify(job)
    assert (result.eq18, result.eq19) == (True, False)
    assert result.verdict is Verdict.COLLUDING_AGGREGATOR
    outcome = round_.dispute(round_.dispute_job(job))
    assert not outcome.sum_matches
    assert outcome.repaired == round_.verify(honest)


def test_forged_values_within_bounds_are_colluding() -> None:
    """With z known, single values can be moved by little: only eq. 19 stands against it."""
    round_, claim, honest = finished(HARDENED)
    scheme = scheme_of(round_.context)
    points = scheme.interpolation.points_from(round_.z_root, scheme.masked_length)
    delta = np.zeros(scheme.masked_length, dtype=np.uint32)
    delta[3] = 1
    no_checks = np.zeros(scheme.coefficients_shape[0], dtype=np.uint32)
    forged = scheme.read_coefficients(claim.sum, "sum")
    fp.accumulate(forged, scheme.interpolation.interpolate(delta, no_checks, points))
    result = round_.verify(with_sum(round_, honest, fp.to_bytes(forged)))
    assert (result.verdict, result.bounded) == (Verdict.COLLUDING_AGGREGATOR, True)


def test_singular_commitment_lets_a_delta_in_the_kernel_of_u_pass() -> None:
    """The break of the paper's scheme that docs/PROTOCOL.md section 5 describes."""
    round_, claim, honest = finished(VCDFL)
    scheme = scheme_of(round_.context)
    commitment = scheme.commitment
    assert isinstance(commitment, SingularCommitment)
    points = scheme.interpolation.points_from(round_.z_root, scheme.masked_length)
    # Rank 8 and 24 coordinates: solve W delta = 0 with delta_8 = 1 for the first eight coordinates.
    u = commitment.matrix()[:8].astype(object)
    rows = [[int(x) for x in (*row[:8], -int(row[8]))] for row in u]
    for pivot in range(8):
        swap = next(r for r in range(pivot, 8) if rows[r][pivot] % fp.P)
        rows[pivot], rows[swap] = rows[swap], rows[pivot]
        inverse = pow(rows[pivot][pivot], -1, fp.P)
        rows[pivot] = [x * inverse % fp.P for x in rows[pivot]]
        for other in range(8):
            if other != pivot:
                factor = rows[other][pivot]
                rows[other] = [(a - factor * b) % fp.P for a, b in zip(rows[other], rows[pivot], strict=True)]
    delta = np.zeros(scheme.masked_length, dtype=np.uint32)
    delta[:8] = [row[8] for row in rows]
    delta[8] = 1
    no_checks = np.zeros(scheme.coefficients_shape[0], dtype=np.uint32)
    forged = scheme.read_coefficients(claim.sum, "sum")
    fp.accumulate(forged, scheme.interpolation.interpolate(delta, no_checks, points))
    result = round_.verify(with_sum(round_, honest, fp.to_bytes(forged)))
    assert result.eq18
    assert result.eq19


@PROFILES
def test_payload_in_the_padding_fails_eq_19(params: ProtocolParams) -> None:
    round_, claim, honest = finished(params)
    scheme = scheme_of(round_.context)
    groups, terms = scheme.coefficients_shape
    padded = groups * (terms - 1)
    assert padded > scheme.masked_length
    points = scheme.interpolation.points_from(round_.z_root, padded)
    delta = np.zeros(padded, dtype=np.uint32)
    delta[-1] = 9
    forged = scheme.read_coefficients(claim.sum, "sum")
    no_checks = np.zeros(groups, dtype=np.uint32)
    fp.accumulate(forged, scheme.interpolation.interpolate(delta, no_checks, points))
    result = round_.verify(with_sum(round_, honest, fp.to_bytes(forged)))
    assert result.verdict is Verdict.COLLUDING_AGGREGATOR


@PROFILES
def test_malformed_sum_is_a_verdict_not_an_error(params: ProtocolParams) -> None:
    round_, claim, honest = finished(params)
    for data in (b"", claim.sum[:-4], claim.sum + bytes(4), b"\xff" * len(claim.sum)):
        job = with_sum(round_, honest, data)
        result = round_.verify(job)
        assert (result.eq18, result.eq19) == (False, False)
        assert result.verdict is Verdict.LAZY_AGGREGATOR
        outcome = round_.dispute(round_.dispute_job(job))
        assert not outcome.sum_matches
        assert outcome.repaired.verdict is Verdict.TRUSTED


# -- proposers that cheat --------------------------------------------------------------------------


@PROFILES
def test_proposer_that_breaks_its_check_is_found(params: ProtocolParams) -> None:
    round_ = rehearse(params, N, b"jobs")
    whole_round(round_, ALL, SURVIVORS, updates(), {i: 100 + i for i in ALL})
    scheme = scheme_of(round_.context)
    points = scheme.interpolation.points_from(round_.z_root, scheme.masked_length)
    # The right values through a wrong hidden point: the sum stays the committed one.
    off_by_one = np.ones(scheme.coefficients_shape[0], dtype=np.uint32)
    nothing = np.zeros(scheme.masked_length, dtype=np.uint32)
    upload = scheme.read_coefficients(round_.contributions[3].upload, "upload")
    fp.accumulate(upload, scheme.interpolation.interpolate(nothing, off_by_one, points))
    recontribute(round_, 3, fp.to_bytes(upload))
    job = round_.verify_job(SURVIVORS, round_.aggregate(SURVIVORS))
    result = round_.verify(job)
    assert result.verdict is Verdict.CHECK_FAULT
    assert result.model_digest != job.model_digest
    outcome = round_.dispute(round_.dispute_job(job))
    assert outcome.sum_matches
    assert outcome.guilty_checks == (3,)
    assert outcome.repaired == result


@PROFILES
def test_proposer_with_other_hidden_points_is_found(params: ProtocolParams) -> None:
    round_ = rehearse(params, N, b"jobs")
    whole_round(round_, ALL, SURVIVORS, updates(), {i: 100 + i for i in ALL})
    job = evolve(round_.contribute_job(1, updates()[1], 101), z_root=digest("another z"))
    result = jobs.run(job, round_.read)
    assert isinstance(result, ContributeResult)
    recontribute(round_, 1, result.upload)
    verify_job = round_.verify_job(SURVIVORS, round_.aggregate(SURVIVORS))
    assert round_.verify(verify_job).verdict in (Verdict.CHECK_FAULT, Verdict.LAZY_AGGREGATOR)
    outcome = round_.dispute(round_.dispute_job(verify_job))
    assert outcome.sum_matches
    assert outcome.guilty_checks == (1,)


@PROFILES
def test_wrong_hash_of_z_is_found_although_all_equations_hold(params: ProtocolParams) -> None:
    round_, _, job = finished(params)
    dispute = round_.dispute_job(job)
    wrong = (*dispute.hash_z[:2], digest("other z"), dispute.hash_z[3])
    assert round_.dispute(evolve(dispute, hash_z=wrong)).guilty_checks == (SURVIVORS[2],)


@PROFILES
def test_malformed_upload_is_its_proposers_fault(params: ProtocolParams) -> None:
    round_, _, job = finished(params)
    recontribute(round_, 4, b"\xff" * len(round_.contributions[4].upload))
    outcome = round_.dispute(round_.dispute_job(job))
    assert outcome.guilty_checks == (4,)
    assert not outcome.sum_matches
    with pytest.raises(JobError, match="upload of proposer 4"):
        round_.aggregate(SURVIVORS)


@PROFILES
def test_miscommitting_proposer_voids_the_round_and_nobody_is_guilty(params: ProtocolParams) -> None:
    round_, _, _ = finished(params)
    other = rehearse(params, N, b"jobs")
    other.pin_sharers(ALL)
    lied = other.contribute(1, np.full(D, 0.3, dtype=np.float32), 101)
    recontribute(round_, 1, round_.contributions[1].upload, lied.commitment)
    job = round_.verify_job(SURVIVORS, round_.aggregate(SURVIVORS))
    result = round_.verify(job)
    assert (result.verdict, result.eq18) == (Verdict.COLLUDING_AGGREGATOR, True)
    outcome = round_.dispute(round_.dispute_job(job))
    assert outcome.sum_matches
    assert outcome.guilty_checks == ()
    assert outcome.repaired == result


@PROFILES
def test_malformed_commitment_is_a_verdict_not_an_error(params: ProtocolParams) -> None:
    round_, _, job = finished(params)
    for data in (b"", b"\xff" * len(job.commitments[0])):
        broken = evolve(job, commitments=(data, *job.commitments[1:]))
        assert round_.verify(broken).verdict is Verdict.COLLUDING_AGGREGATOR


@PROFILES
def test_values_out_of_bounds_are_unbounded_whatever_the_equations_say(params: ProtocolParams) -> None:
    round_ = rehearse(params, N, b"jobs")
    whole_round(round_, ALL, SURVIVORS, updates(), {i: 100 + i for i in ALL})
    context = round_.context
    scheme = scheme_of(context)
    # Proposer 0 adds 2^27 to its first coordinate, and commits to it.
    delta = np.zeros(scheme.masked_length, dtype=np.int64)
    delta[0] = 1 << 27
    points = scheme.interpolation.points_from(round_.z_root, scheme.masked_length)
    no_checks = np.zeros(scheme.coefficients_shape[0], dtype=np.uint32)
    upload = scheme.read_coefficients(round_.contributions[0].upload, "upload")
    fp.accumulate(upload, scheme.interpolation.interpolate(fp.from_signed(delta), no_checks, points))
    commitment = scheme.read_commitment(round_.contributions[0].commitment, "commitment")
    fp.accumulate(commitment, scheme.commitment.commit(delta))
    recontribute(round_, 0, fp.to_bytes(upload), fp.to_bytes(commitment))
    job = round_.verify_job(SURVIVORS, round_.aggregate(SURVIVORS))
    result = round_.verify(job)
    assert result.eq18
    assert result.verdict is Verdict.UNBOUNDED
    assert result.model_digest == job.model_digest
    outcome = round_.dispute(round_.dispute_job(job))
    assert (outcome.sum_matches, outcome.guilty_checks) == (True, ())


# -- keys, shares, restarts ------------------------------------------------------------------------


def test_a_copied_mask_key_is_no_mask_and_stops_nobody() -> None:
    """Mallory (4) advertises Alice's (0) mask key, to have masks cancel or Alice's key rebuilt as his."""
    round_ = rehearse(HARDENED, N, b"copied")
    alice, mallory = 0, 4
    publics = (*round_.context.mask_publics[:4], round_.context.mask_publics[alice])
    round_.context = evolve(round_.context, mask_publics=publics)
    context = round_.context
    peers = (context.proposers[alice], context.proposers[mallory])
    with pytest.raises(MaskError, match="same mask key"):
        pair_seed(bytes([1]) * 32, context.network, 1, publics[0], publics[4], *peers)
    with pytest.raises(JobError, match="proposer 4 advertised other keys"):
        jobs.run(round_.deal_job(mallory), round_.read)
    for dealer in range(4):
        round_.deal(dealer)
    # He deals shares of what he has, and drops out.
    round_.context = evolve(context, mask_publics=tuple(s.mask_public for s in round_.secrets))
    round_.deal(mallory)
    round_.context = context
    round_.pin_sharers(ALL)
    seeds = own_pair_seeds(round_.context, 1, round_.secrets[1].mask_key)
    assert len(set(seeds.values())) == 4
    assert set(own_pair_seeds(round_.context, alice, round_.secrets[alice].mask_key)) == {1, 2, 3}
    for proposer in range(4):
        round_.contribute(proposer, updates()[proposer], 1)
    claim = round_.aggregate(range(4))
    (fault,) = claim.faults
    assert (fault.dealer, fault.kind) == (mallory, ShareKind.MASK)
    roots = round_.dealings[mallory].roots
    assert fault_holds(round_.context, fault, roots[ShareKind.MASK], publics[mallory])
    assert claim.mask_secrets == ()


def test_a_low_order_mask_key_stops_nobody() -> None:
    round_ = rehearse(HARDENED, N, b"low order")
    publics = (*round_.context.mask_publics[:4], bytes(32))
    round_.context = evolve(round_.context, mask_publics=publics)
    for dealer in range(4):
        round_.deal(dealer)
    round_.pin_sharers(range(4))
    claim, job = whole_round(round_, range(4), range(4), updates(), dict.fromkeys(ALL, 1))
    assert claim.faults == ()
    assert round_.verify(job).verdict is Verdict.TRUSTED
    round_.pin_sharers(ALL)
    assert set(own_pair_seeds(round_.context, 0, round_.secrets[0].mask_key)) == {1, 2, 3}


def test_secrets_of_another_life_are_refused() -> None:
    round_ = rehearse(HARDENED, N, b"jobs")
    other = RoundSecrets.derive(bytes(32), round_.context.network, 1)
    for job in (round_.deal_job(0), round_.contribute_job(0, updates()[0], 1)):
        with pytest.raises(JobError, match="proposer 0 advertised other keys"):
            jobs.run(evolve(job, secrets=other), round_.read)
    with pytest.raises(JobError, match="proposer 0 is not in U1"):
        jobs.run(round_.contribute_job(0, updates()[0], 1), round_.read)


def test_verify_job_must_fit_its_round() -> None:
    round_, _, job = finished(HARDENED)
    for change, named in (
        ({"self_seeds": job.self_seeds[1:]}, "self_seeds"),
        ({"mask_secrets": ()}, "mask_secrets"),
        ({"weights": job.weights[1:]}, "weights"),
        ({"weights": (0,) * 4}, "weights"),
        ({"contributors": ()}, "contributors"),
        ({"contributors": (0, 1, 3, 9)}, "contributors"),
    ):
        with pytest.raises(JobError, match=named):
            round_.verify(evolve(job, **change))


def test_blinded_commitment_reads_only_with_the_check_seed() -> None:
    round_, _, _ = finished(mixed(commitment=CommitmentScheme.SINGULAR))
    context, scheme = round_.context, scheme_of(round_.context)
    published = scheme.read_commitment(round_.contributions[0].commitment, "commitment")
    plain = evolve(context, params=evolve(context.params, blinded=False))
    job = evolve(round_.contribute_job(0, updates()[0], 100), context=plain)
    result = jobs.run(job, round_.read)
    assert isinstance(result, ContributeResult)
    clear = scheme.read_commitment(result.commitment, "commitment")
    assert not np.array_equal(published, clear)
    seed = round_.secrets[0].check_seed
    assert np.array_equal(published, blind(clear, seed, context.network, 1, context.proposers[0]))
    assert result.commitment_digest == commitment_digest(result.commitment)
    assert result.upload_digest == blob_digest(result.upload)


# -- forms -----------------------------------------------------------------------------------------


@PROFILES
def test_uploads_and_commitments_are_checked_for_form(params: ProtocolParams) -> None:
    round_, _, _ = finished(params)
    result = round_.contributions[0]
    check_upload(params, result.upload)
    check_commitment(params, result.commitment)
    for data in (b"", result.upload[:-1], result.upload + b"\0", b"\xff" * len(result.upload)):
        with pytest.raises(UploadError, match="upload"):
            check_upload(params, data)
        job = CheckUploadJob(round_.context, round_.put(data))
        assert jobs.run(job, round_.read) == CheckUploadResult(job.upload_digest, False)
    whole = CheckUploadJob(round_.context, result.upload_digest)
    assert jobs.run(whole, round_.read) == CheckUploadResult(result.upload_digest, True)
    with pytest.raises(UploadError, match="commitment"):
        check_commitment(params, result.commitment[4:])


def test_a_dealers_network_needs_the_dealers_matrices() -> None:
    with pytest.raises(SchemeError, match="u_seed"):
        build_scheme(VCDFL, bytes(32), None)


def test_checkpoints_round_trip_and_refuse_other_sizes() -> None:
    shared = mixed(sparsify=Sparsify.SHARED_SUPPORT, sparsify_permille=250)
    weights = np.linspace(-3, 3, D, dtype=np.float32)
    for params, words in ((HARDENED, D), (shared, 2 * D)):
        data = initial_checkpoint(params, weights)
        assert len(data) == checkpoint_bytes(params) == 8 * words
        decoded = decode_checkpoint(params, data)
        assert decoded.model.tolist() == [round(float(w) * 2**24) for w in weights]
        assert decoded.last_aggregate is None
        assert encode_checkpoint(params, decoded) == data
        for bad in (b"", data[:-1], data + bytes(8)):
            with pytest.raises(CheckpointError):
                decode_checkpoint(params, bad)
    last = np.arange(D, dtype=np.int64) - 5
    data = encode_checkpoint(shared, Checkpoint(last * 7, last))
    decoded = decode_checkpoint(shared, data)
    assert decoded.model.tolist() == (last * 7).tolist()
    assert decoded.last_aggregate is not None
    assert decoded.last_aggregate.tolist() == last.tolist()
    for bad_weights in (weights[1:], weights.astype(np.float64), np.full(D, np.nan, dtype=np.float32)):
        with pytest.raises(CheckpointError):
            initial_checkpoint(HARDENED, bad_weights)


def test_a_sum_that_would_overflow_the_model_leaves_it() -> None:
    round_ = rehearse(HARDENED, N, b"overflow", np.full(D, 2.0**26, dtype=np.float32))
    steep = {i: np.full(D, 1.0, dtype=np.float32) for i in ALL}
    _, job = whole_round(round_, ALL, ALL, steep, dict.fromkeys(ALL, 1 << 16))
    result = round_.verify(job)
    assert result.verdict is Verdict.TRUSTED
    assert result.model_digest == job.model_digest


def test_warm_compiles_for_a_network() -> None:
    jobs.warm(HARDENED, bytes(32))
    jobs.warm(VCDFL)
