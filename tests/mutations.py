"""Takes the defences of the hardest pitfalls away, one by one, and shows the test that turns red.

    make mutations

Each defence is removed in a copy of the package, so that nothing here can leave a trace; the test that is
named after the pitfall must fail there. A mutant that survives makes this fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Mutation(NamedTuple):
    """One defence: where it stands, what takes its place, and the test that must notice."""

    defence: str
    file: str
    old: str
    new: str
    test: str


MUTATIONS = (
    Mutation(
        "split autocast's cached casts",
        "capture/walk.py",
        '"TBackward0", "ToCopyBackward0",',
        '"TBackward0",',
        "capture/test_stems.py::test_autocast_weight_cache_is_split_and_grad_is_untouched",
    ),
    Mutation(
        "label a checkpoint's second pass by its first",
        "capture/planting.py",
        "call.recomputes = mark\n",
        "call.recomputes = None\n",
        "capture/test_recomputation.py::test_checkpointed_paths_keep_their_names",
    ),
    Mutation(
        "drop what autograd.grad brings: it does not accumulate",
        "capture/ledger.py",
        "backward = self.pending.pop(task, None)",
        "backward = self.pending.pop(task, None)\n"
        "        for lost in self.pending.values():\n"
        "            backward.edges.extend(lost.edges)\n"
        "            backward.gradients.extend(lost.gradients)\n"
        "            backward.names += tuple('shared' for _ in lost.edges)",
        "capture/test_steps.py::test_autograd_grad_accumulates_nothing_and_is_not_counted",
    ),
    Mutation(
        "forget contributions with the gradients that are cleared",
        "capture/ledger.py",
        "return grad is None or self._was_zeroed(grad)",
        "return False",
        "capture/test_steps.py::test_gradients_cleared_before_the_step_do_not_count",
    ),
    Mutation(
        "let a call join the path of its inputs",
        "capture/labels.py",
        "paths[call] = keys.pop() if len(keys) == 1 else _new_path(call.module, roots)",
        "paths[call] = _new_path(call.module, roots)",
        "capture/test_branches.py::test_later_module_follows_its_input_and_not_its_count",
    ),
    Mutation(
        "follow what a backward with create_graph builds",
        "capture/observer.py",
        "if torch.is_grad_enabled() and self.passes.split is None:",
        "if False:",
        "capture/test_recomputation.py::test_gradient_penalty_is_conserved_and_belongs_to_its_path",
    ),
    Mutation(
        "look through a model that has changed before it is watched again",
        "capture/targets.py",
        "return self.holdings is None or not all(",
        "return False and not all(",
        "capture/test_module_hooks.py::test_hooks_that_are_put_on_again_fit_the_model_as_it_is_by_then",
    ),
    Mutation(
        "keep no graph alive through a gradient that has one",
        "capture/arrivals.py",
        "gradient = gradient.detach().clone()",
        "pass",
        "capture/test_recomputation.py::test_create_graph_keeps_no_graph_alive",
    ),
    Mutation(
        "tell a factor from an edited gradient",
        "capture/reading.py",
        "is_scaled = is_multiple & (norm(grad - total",
        "is_scaled = torch.ones_like(is_multiple) | (norm(grad - total",
        "capture/test_steps.py::test_gradient_changed_by_hand_is_edited",
    ),
    Mutation(
        "catch a failure of ours",
        "capture/observer.py",
        "        except Exception as error:\n            self.fail(error)\n\n    def _arrive",
        "        except ZeroDivisionError as error:\n            raise error\n\n    def _arrive",
        "capture/test_harmless.py::test_failure_of_ours_leaves_the_training_as_it_is",
    ),
    Mutation(
        "know everything that reads a trunk beside the branches",
        "capture/passes.py",
        "self._marker.open_to_outside(node)",
        "pass",
        "capture/test_stems.py::test_trunk_that_the_loss_reads_beside_one_branch_is_not_given_to_it",
    ),
    Mutation(
        "read the mean of DDP only once the ranks have met",
        "capture/ranks.py",
        "_DEPTH = 4",
        "_DEPTH = 0",
        "distributed/test_ranks.py::test_ddp_contributions_are_local_and_the_mean_is_told_apart",
    ),
    Mutation(
        "know which parameter a leaf of FSDP stands in for",
        "capture/ranks.py",
        "return id(leaf) if found is None else found[1]",
        "return id(leaf)",
        "distributed/test_ranks.py::test_fsdp_contributions_are_local_and_the_delta_is_that_of_the_shard",
    ),
    Mutation(
        "count a step inside a step of the same optimizer once",
        "capture/recorder.py",
        "return depth == 2",
        "return False",
        "capture/test_recomputation.py::test_a_step_inside_a_step_of_the_same_optimizer_is_one_step",
    ),
    Mutation(
        "read the gradients when a closure has run",
        "capture/session.py",
        "self._observer.guarded(self._movers[position].closure_ends, self._harvest)",
        "pass",
        "capture/test_recomputation.py::test_a_closure_that_runs_once_is_split_like_any_step",
    ),
    Mutation(
        "name Keras's calls as they were written, not as it runs them",
        "integrations/keras_order.py",
        "[names[i] for i in order]",
        "list(names)",
        "integrations/test_keras.py::test_names_follow_the_order_of_writing_however_keras_runs_the_calls",
    ),
    Mutation(
        "tell that Keras was given other gradients than those of the backward",
        "integrations/keras_steps.py",
        'return "apply() was given another gradient than .grad holds"',
        'return ""',
        "integrations/test_keras.py::test_other_gradients_than_those_of_the_backward_are_not_split",
    ),
    Mutation(
        "name no rows of what sentence-transformers embeds again inside the backward",
        "integrations/sentence_transformers.py",
        "torch.is_grad_enabled() and torch._C._current_graph_task_id() == -1",
        "torch.is_grad_enabled()",
        "integrations/test_sentence_transformers.py::"
        "test_a_loss_that_embeds_again_inside_the_backward_is_told_as_unclaimed",
    ),
    Mutation(
        "let a call read what is inside it without sharing it",
        "capture/marking.py",
        "mark.call.is_inside(call)",
        "call.is_inside(mark.call)",
        "capture/test_branches.py::"
        "test_module_that_is_given_no_tensor_and_joins_its_named_paths_shares_nothing",
    ),
    Mutation(
        "leave a stretch that nobody claimed to nobody",
        "capture/labels.py",
        "if mark.is_unplaced:",
        "if False:",
        "capture/test_stems.py::test_stretch_left_unclaimed_in_one_branch_is_not_given_to_the_next",
    ),
    Mutation(
        "keep a pass through a trunk out of the branches that it leads through",
        "capture/passes.py",
        "return (None,) * len(arriving)",
        "return None",
        "proofs/test_random_graphs.py::test_a_trunk_that_leads_through_a_branch_is_split_without_what_the_branch_brings",
    ),
    Mutation(
        "ask whether a backward came to a trunk by the branch that reads it",
        "capture/passes.py",
        "mark.add_reach(mark.window.outside)",
        "pass",
        "capture/test_stems.py::test_what_comes_from_inside_a_trunk_is_not_given_to_its_one_reader",
    ),
    Mutation(
        "ask whether what a trunk's nodes sent is all that arrives there",
        "capture/stems.py",
        "if sums_to(parts, whole):",
        "if parts:",
        "capture/test_stems.py::"
        "test_what_several_nodes_of_a_trunk_send_is_told_from_what_the_loss_sends_beside_them",
    ),
    Mutation(
        "look who reads a trunk when a backward comes to it",
        "capture/passes.py",
        "self._marker.look_behind(node)",
        "pass",
        "capture/test_branches.py::test_trunk_read_by_one_branch_only_belongs_to_it",
    ),
    Mutation(
        "round what a part is made of as torch does, whatever the loop around it may reorder",
        "capture/weighing.py",
        "@compiled(forceinline=True)\ndef _over_root",
        "@compiled(forceinline=True, fastmath=IN_ANY_ORDER)\ndef _over_root",
        "capture/test_kernels.py::test_a_number_over_a_root_is_worked_out_as_torch_would",
    ),
    Mutation(
        "tell that a backward added to what was let go of",
        "capture/observer.py",
        "        if is_missing:\n",
        "        if False:\n",
        "capture/test_letting_go.py::test_a_second_backward_after_all_is_told_once_and_never_again",
    ),
    Mutation(
        "keep what is not a number",
        "capture/arrivals.py",
        "self.parts is None and self.survey.is_finite:",
        "self.parts is None:",
        "capture/test_letting_go.py::test_what_is_not_a_number_is_kept_and_told",
    ),
    Mutation(
        "see what is left of a gradient that was let go of",
        "capture/ledger.py",
        "return stamp(grad) == backward.stamp or (len(hooks) == 1 and not grad.is_sparse)",
        "return True",
        "capture/test_letting_go.py::test_a_hook_that_changes_a_gradient_at_once_is_seen",
    ),
    Mutation(
        "compare what arrived with what the leaf received",
        "capture/compiled.py",
        "if here[i] != there[i] and not",
        "if False and not",
        "capture/test_kernels.py::test_rows_are_a_sum_only_to_the_last_bit_and_only_in_their_order",
    ),
    Mutation(
        "let the rows of a file hold no more than the file",
        "storage/reader.py",
        'raise ValueError(f"its rows hold {size} bytes, the file {self._file_bytes}")',
        "pass",
        "storage/test_bombs.py::test_many_rows_that_share_their_bytes_are_told_before_they_are_read",
    ),
    Mutation(
        "end a query that the pages of a file lead in circles",
        "storage/database.py",
        "return self.taken > max(self.LEAST, self.PER_BYTE * self.file_bytes)",
        "return False",
        "storage/test_bombs.py::test_pages_that_lead_in_circles_are_told_or_harmless",
    ),
    Mutation(
        "write a step whole or not at all",
        "storage/database.py",
        'db.execute("BEGIN IMMEDIATE")',
        'db.execute("SELECT 1")',
        "storage/test_killed.py::test_a_step_is_there_from_its_commit_on_and_nothing_of_it_before",
    ),
    Mutation(
        "keep the loss of a step that is not watched out of the one before",
        "capture/session.py",
        "return bool(self._stepped) or self._closed_at != _operations()",
        "return bool(self._stepped)",
        "capture/test_options_together.py::test_what_is_kept_is_what_a_recording_of_everything_keeps",
    ),
    Mutation(
        "let a logged tensor travel with all else of its step",
        "capture/session.py",
        "return self._harvest.add(value)",
        "return Slot.of(np.array([value.item()]))",
        "capture/test_no_waiting.py::test_nothing_waits_for_the_device_but_one_transfer_a_step",
    ),
    Mutation(
        "keep what is sent through a stem from the user's hooks on its weights",
        "capture/stems.py",
        'if not hasattr(hook, "planter")',
        "if False",
        "capture/test_stems.py::test_hook_of_the_user_on_a_weight_is_called_once_and_with_the_whole",
    ),
    Mutation(
        "break long chains of nodes, which are freed by recursion",
        "capture/marking.py",
        "            break_chain(node, slots)\n",
        "",
        "capture/test_depth.py::test_chain_that_grew_in_any_manner_is_freed_where_the_stack_is_small",
    ),
    Mutation(
        "free what a broken chain holds from the outermost break",
        "capture/release.py",
        "            waiting.nodes.append(nodes)\n            return\n",
        "            pass\n",
        "capture/test_depth.py::test_chain_that_grew_in_any_manner_is_freed_where_the_stack_is_small",
    ),
    Mutation(
        "know a pass only in the thread that it runs in",
        "capture/passes.py",
        "split is None or split.thread != threading.get_ident()",
        "split is None",
        "capture/test_stems.py::test_fence_of_a_pass_stops_nothing_that_another_thread_sends",
    ),
)


def is_caught(mutation: Mutation, folder: Path) -> bool:
    """Tell whether the test fails once the defence is gone, and passes with it."""
    path = folder / "gradflow" / mutation.file
    whole = path.read_text(encoding="utf-8")
    if whole.count(mutation.old) != 1:
        raise SystemExit(f"{mutation.file} does not hold the defence once: {mutation.old!r}")
    before = runs(mutation.test, folder)
    path.write_text(whole.replace(mutation.old, mutation.new), encoding="utf-8")
    after = runs(mutation.test, folder)
    path.write_text(whole, encoding="utf-8")
    return before and not after


def runs(test: str, folder: Path) -> bool:
    """Tell whether a test passes on the copy."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", f"tests/{test}"]
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    return (
        subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False).returncode == 0
    )


def main() -> int:
    """Run every mutation; give the number that survived."""
    survived = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("gradflow", "tests"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        for mutation in MUTATIONS:
            caught = is_caught(mutation, folder)
            survived += not caught
            print("red " if caught else "ALIVE", f"{mutation.defence:62}", mutation.test, flush=True)
    print(f"{len(MUTATIONS) - survived} of {len(MUTATIONS)} mutants were caught")
    return survived


if __name__ == "__main__":
    sys.exit(main())
