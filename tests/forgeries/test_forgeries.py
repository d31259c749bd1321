"""Attacks on a model, each refused at its step and for its reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from provenance.errors import (
    ContentError,
    LogProofError,
    MalformedError,
    PolicyError,
    ProvenanceError,
    SignatureError,
    SubjectError,
    UnreadableError,
)
from provenance.files.manifest import FileEntry
from provenance.statement.training import ChangedInput, Outcome
from provenance.trust.verification import STEPS, Step
from tests.forgeries import attacks, log_attacks
from tests.forgeries.scene import Scene
from tests.world import sign_document, state, statement_document

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.world import Person, Shell


class Forgery(NamedTuple):
    """What the attacker does, the step that does not hold, the error, and words of it."""

    attack: Callable[[Scene], None]
    step: str
    error: type[ProvenanceError]
    words: tuple[str, ...]


CHANGED_CLAIM = "the signature does not fit: the claim was changed after it was signed"

FORGERIES = (
    # The files
    Forgery(attacks.flip_a_bit, "manifest", ContentError, ("model.bin was changed",)),
    Forgery(
        attacks.rename_a_file,
        "manifest",
        ContentError,
        ("model.bin is missing", "model.old is extra"),
    ),
    Forgery(
        attacks.swap_two_files,
        "manifest",
        ContentError,
        ("config.json was changed", "model.bin was changed"),
    ),
    Forgery(
        attacks.move_a_file_into_a_folder,
        "manifest",
        ContentError,
        ("tokenizer/vocab.txt is missing", "vocab.txt is extra"),
    ),
    Forgery(attacks.add_a_file, "manifest", ContentError, ("modeling.py is extra",)),
    Forgery(
        attacks.add_a_nested_claims_file,
        "manifest",
        ContentError,
        ("tokenizer/claims.jsonl is extra",),
    ),
    Forgery(attacks.remove_a_file, "manifest", ContentError, ("tokenizer/vocab.txt is missing",)),
    Forgery(
        attacks.link_the_weights_elsewhere,
        "manifest",
        UnreadableError,
        ("model.bin", "symbolic link that leaves the folder", "cp -rL"),
    ),
    Forgery(attacks.link_the_weights_to_a_twin, "manifest", ContentError, ("twin.bin is extra",)),
    Forgery(attacks.weights_as_a_fifo, "manifest", UnreadableError, ("model.bin: is a FIFO",)),
    Forgery(attacks.replay_an_old_claim, "manifest", ContentError, ("model.bin was changed",)),
    # Beside the files
    Forgery(
        attacks.hide_a_file_among_the_byproducts,
        "manifest",
        ContentError,
        ("provenance/modeling.py: is extra", "named by their SHA-256"),
    ),
    Forgery(
        attacks.hide_a_file_under_a_digest,
        "manifest",
        ContentError,
        ("its content is not what its name says",),
    ),
    Forgery(
        attacks.hide_a_folder_among_the_byproducts,
        "manifest",
        ContentError,
        ("modeling.py: is extra",),
    ),
    Forgery(
        attacks.link_the_byproducts_elsewhere,
        "manifest",
        UnreadableError,
        ("provenance: is a symbolic link that leaves the folder",),
    ),
    Forgery(
        attacks.hide_much_among_the_byproducts,
        "manifest",
        ContentError,
        ("too large for a byproduct that no claim names",),
    ),
    Forgery(
        attacks.a_large_file_that_nobody_states,
        "manifest",
        ContentError,
        ("model.safetensors is extra",),
    ),
    Forgery(
        attacks.a_large_file_that_nobody_signed,
        "manifest",
        ContentError,
        ("model.safetensors is extra",),
    ),
    Forgery(
        attacks.hide_code_in_a_cache,
        "manifest",
        ContentError,
        (".cache/huggingface/modeling.py: is code or weights", "move it away"),
    ),
    Forgery(
        attacks.hide_a_file_beside_a_cache, "manifest", ContentError, (".cache/evil is extra",)
    ),
    Forgery(
        attacks.hide_weights_among_notebooks,
        "manifest",
        ContentError,
        ("Model.SafeTensors: is code or weights",),
    ),
    Forgery(
        attacks.link_to_code_from_a_cache,
        "manifest",
        UnreadableError,
        (".dvc/tmp: is a symbolic link that leaves the folder",),
    ),
    Forgery(
        attacks.a_cache_behind_a_link,
        "manifest",
        UnreadableError,
        (".cache: is a symbolic link that leaves the folder",),
    ),
    Forgery(
        attacks.a_folder_under_a_files_name,
        "manifest",
        ContentError,
        (".DS_Store/evil is extra",),
    ),
    Forgery(
        attacks.a_folder_under_a_temporary_name,
        "manifest",
        ContentError,
        ("claims.jsonl.tmp: is extra",),
    ),
    Forgery(
        attacks.a_folder_under_a_byproducts_temporary_name,
        "manifest",
        ContentError,
        (".tmp: is extra: what a writer leaves", "is a small file"),
    ),
    Forgery(
        attacks.much_under_a_temporary_name,
        "manifest",
        ContentError,
        ("model.sig.tmp: is extra", "is a small file"),
    ),
    Forgery(
        attacks.link_the_claims_elsewhere,
        "parse",
        UnreadableError,
        ("claims.jsonl: is a symbolic link", "--claims"),
    ),
    Forgery(attacks.claims_as_a_fifo, "parse", UnreadableError, ("is a FIFO, not a file",)),
    Forgery(
        attacks.remove_all_claims,
        "parse",
        UnreadableError,
        ("neither claims.jsonl nor model.sig is there",),
    ),
    # A claim's signature
    Forgery(attacks.edit_a_field, "signature", SignatureError, (CHANGED_CLAIM,)),
    Forgery(attacks.reformat_the_payload, "signature", SignatureError, (CHANGED_CLAIM,)),
    Forgery(attacks.take_another_claims_signature, "signature", SignatureError, (CHANGED_CLAIM,)),
    Forgery(
        attacks.sign_in_alices_name,
        "signature",
        SignatureError,
        ("another key signed it in this one's name",),
    ),
    Forgery(
        attacks.sign_in_alices_name_beside_her_claim,
        "signature",
        SignatureError,
        ("claims.jsonl:2", "another key signed it in this one's name"),
    ),
    Forgery(
        attacks.sign_without_a_name,
        "signature",
        SignatureError,
        ("none of the given keys made this signature",),
    ),
    Forgery(attacks.sign_with_an_own_key, "signature", SignatureError, ("signed by another key",)),
    Forgery(
        attacks.hint_at_alice_and_keyid_of_mallory,
        "signature",
        SignatureError,
        ("another key signed it in this one's name",),
    ),
    Forgery(
        attacks.two_signatures,
        "parse",
        MalformedError,
        ("length <= 1 - at '$.dsseEnvelope.signatures",),
    ),
    Forgery(
        attacks.no_signature,
        "parse",
        MalformedError,
        ("length >= 1 - at '$.dsseEnvelope.signatures",),
    ),
    Forgery(attacks.another_payload_type, "signature", SignatureError, (CHANGED_CLAIM,)),
    Forgery(
        attacks.signed_as_something_else,
        "statement",
        MalformedError,
        ("not signed as a statement but as 'application/json'",),
    ),
    Forgery(attacks.forge_the_model_signature, "signature", SignatureError, ("model.sig",)),
    # A claim's statement
    Forgery(attacks.two_subjects, "statement", MalformedError, ("exactly one subject",)),
    Forgery(
        attacks.another_subject,
        "subject",
        SubjectError,
        ("the subject is not the root digest of the manifest",),
    ),
    Forgery(attacks.an_unknown_parameter, "statement", MalformedError, ("backdoor",)),
    Forgery(attacks.another_build_type, "statement", MalformedError, ("not a training",)),
    Forgery(attacks.a_name_that_escapes, "statement", MalformedError, ("leaves the folder",)),
    Forgery(attacks.a_file_that_stands_twice, "statement", MalformedError, ("is duplicated",)),
    Forgery(attacks.a_key_that_shadows, "statement", MalformedError, ("'subject' is duplicated",)),
    Forgery(
        attacks.another_kind_of_statement,
        "statement",
        PolicyError,
        ("signed only statements of other kinds",),
    ),
    Forgery(attacks.an_integer_without_end, "statement", MalformedError, ("beyond 2^53 - 1",)),
    Forgery(
        attacks.another_declaration_under_the_digest,
        "equality declaration",
        MalformedError,
        ("the declaration has another digest than stated",),
    ),
    Forgery(
        attacks.another_name_of_the_declaration,
        "equality declaration",
        MalformedError,
        ("name or axes differ",),
    ),
    Forgery(
        attacks.no_declaration_at_all,
        "equality declaration",
        MalformedError,
        ("not an equality declaration",),
    ),
    Forgery(
        attacks.a_declaration_in_another_form,
        "equality declaration",
        MalformedError,
        ("not in its canonical form",),
    ),
    Forgery(
        attacks.a_second_declaration,
        "equality declaration",
        PolicyError,
        ("claims.jsonl:1 and claims.jsonl:2 declare different equalities",),
    ),
    Forgery(attacks.a_failed_training, "outcome", PolicyError, ("ended with status 1",)),
    Forgery(attacks.a_killed_training, "outcome", PolicyError, ("killed by SIGKILL",)),
    Forgery(
        attacks.inputs_that_changed,
        "outcome",
        PolicyError,
        ("inputs changed while the training ran: data:train",),
    ),
    Forgery(
        attacks.a_changed_file_among_added_ones,
        "outcome",
        PolicyError,
        ("data:train: a.csv was changed; added labels.cache",),
    ),
    Forgery(attacks.changed_files_that_are_only_counted, "outcome", PolicyError, ("and 1 more",)),
    Forgery(attacks.a_negative_number_of_changed_files, "statement", MalformedError, ("more",)),
    Forgery(attacks.an_unknown_way_to_change, "statement", MalformedError, ("touched",)),
    Forgery(attacks.an_added_file_without_digest, "statement", MalformedError, ("size",)),
    Forgery(
        attacks.an_added_file_with_a_digest_that_is_none, "statement", MalformedError, ("sha256",)
    ),
    Forgery(
        attacks.recorded_with_files_that_nobody_saw,
        "outcome",
        PolicyError,
        ("recorded is required", "was not seen to make all of these files"),
    ),
    Forgery(
        attacks.recorded_by_a_run_that_wrote_nothing,
        "outcome",
        PolicyError,
        ("recorded is required",),
    ),
    Forgery(
        attacks.recorded_by_a_finish_time_alone,
        "outcome",
        PolicyError,
        ("recorded is required", "its end was not seen"),
    ),
    Forgery(
        attacks.recorded_in_another_signers_claim,
        "outcome",
        PolicyError,
        ("recorded is required", "attested after the fact"),
    ),
    # The bytes of the claims
    Forgery(attacks.cut_off_the_end, "parse", MalformedError, ("claims.jsonl", "not JSON")),
    Forgery(attacks.drop_the_last_line_end, "parse", MalformedError, ("the file is truncated",)),
    Forgery(attacks.append_garbage, "parse", MalformedError, ("claims.jsonl:2", "not JSON")),
    Forgery(attacks.insert_a_blank_line, "parse", MalformedError, ("claims.jsonl:2",)),
    Forgery(attacks.empty_the_claims, "parse", MalformedError, ("claims.jsonl", "not JSON")),
    Forgery(
        attacks.a_key_of_the_bundle_twice, "parse", MalformedError, ("'mediaType' is duplicated",)
    ),
    Forgery(attacks.base64_with_a_line_break, "parse", MalformedError, ("payload", "base64")),
    Forgery(attacks.nest_deeply, "parse", MalformedError, ("nested deeper than 64 levels",)),
    # The proof that a claim is in a log
    Forgery(log_attacks.never_published, "log proof", LogProofError, ("no proof of any log",)),
    Forgery(
        log_attacks.published_in_another_log,
        "log proof",
        LogProofError,
        ("no proof of the log example.org/wanted, only of others",),
    ),
    Forgery(
        log_attacks.another_key_under_the_logs_name,
        "log proof",
        LogProofError,
        ("no proof of the log example.org/log, only of others",),
    ),
    Forgery(
        log_attacks.only_a_model_signature,
        "log proof",
        LogProofError,
        ("only training statements are logged",),
    ),
    Forgery(log_attacks.strip_the_entry, "log proof", LogProofError, ("no proof of any log",)),
    Forgery(
        log_attacks.take_another_claims_entry,
        "log proof",
        LogProofError,
        ("step 2 (body)", "not about this envelope"),
    ),
    Forgery(
        log_attacks.take_the_entry_of_other_weights,
        "log proof",
        LogProofError,
        ("step 2 (body)", "not about this envelope"),
    ),
    Forgery(log_attacks.index_at_the_size, "log proof", LogProofError, ("step 5 (inclusion)",)),
    Forgery(log_attacks.index_of_another, "log proof", LogProofError, ("step 5 (inclusion)",)),
    Forgery(log_attacks.smaller_tree, "log proof", LogProofError, ("step 4 (tree)",)),
    Forgery(log_attacks.another_root, "log proof", LogProofError, ("step 4 (tree)",)),
    Forgery(log_attacks.shorter_path, "log proof", LogProofError, ("step 5 (inclusion)",)),
    Forgery(log_attacks.edited_checkpoint, "log proof", LogProofError, ("step 3 (checkpoint)",)),
    Forgery(log_attacks.broken_checkpoint, "log proof", MalformedError, ("step 3 (checkpoint)",)),
    Forgery(
        log_attacks.checkpoint_by_another_key,
        "log proof",
        LogProofError,
        ("step 3 (checkpoint)",),
    ),
    Forgery(log_attacks.unknown_field, "log proof", MalformedError, ("unknown field 'note'",)),
    Forgery(log_attacks.seventeen_entries, "parse", MalformedError, ("length <= 16",)),
)


@pytest.fixture
def scene(model: Path, people: dict[str, Person]) -> Scene:
    return Scene(model, people["alice"], people["bob"], people["mallory"], people["larry"])


def test_the_scene_itself_is_verified(scene: Scene) -> None:
    scene.publish()
    steps: list[Step] = []
    verified = scene.verify(steps.append)
    assert [step.name for step in steps] == list(STEPS)
    assert [step.name for step in steps if step.skipped] == ["verdict"]
    assert verified.log_index == 0


@pytest.mark.parametrize("forgery", FORGERIES, ids=lambda forgery: forgery.attack.__name__)
def test_forgery(forgery: Forgery, scene: Scene) -> None:
    forgery.attack(scene)
    steps: list[Step] = []
    with pytest.raises(ProvenanceError) as caught:
        scene.verify(steps.append)
    assert type(caught.value) is forgery.error, caught.value
    for words in forgery.words:
        assert words in str(caught.value)
    assert STEPS[len(steps)] == forgery.step


def test_hostile_words_in_an_accepted_claim_are_safe_and_few(
    scene: Scene, provenance: Shell
) -> None:
    word = "\x1b[2J\nverified: all is well\u202e" + "x" * 10**4
    entries = tuple(FileEntry(f"{word}{n}", 1, "44" * 32) for n in range(20))
    inputs = tuple(ChangedInput(f"{word}{n}", added=entries) for n in range(20))
    outcome = Outcome(0, "", inputs, rewritten=(word,) * 100, unseen=(word,) * 100)
    document = statement_document(state(scene.root, outcome=outcome))
    scene.write(sign_document(document, scene.alice))
    for command in ("verify", "show"):
        key = ("--key", scene.alice.public) if command == "verify" else ()
        ran = provenance(command, scene.root, *key)
        assert ran.status == 0
        assert all(line.isprintable() for line in ran.out.splitlines())
        assert not any(line.startswith("verified: all") for line in ran.out.splitlines())
        assert len(ran.out) < 10**5
