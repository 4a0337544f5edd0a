"""submitit's Slurm executor, with a clean environment for sbatch and arrays of the same making.

CleanExecutor(folder, python="/env/bin/python -P").submit(function, 1)
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from submitit.core.utils import DelayedSubmission
from submitit.slurm.slurm import SlurmExecutor, SlurmJob

from infra.slurm_command import without_user_defaults


class CleanExecutor(SlurmExecutor):  # type: ignore[misc]  # submitit is untyped here
    """submitit's executor, with a clean environment for sbatch and arrays of one's own making."""

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        return [*without_user_defaults(), "sbatch", str(submission_file_path)]

    def _internal_process_submissions(self, delayed_submissions: list[DelayedSubmission]) -> Any:
        """Submit several at once as an array; submitit's own would forget the command above."""
        if len(delayed_submissions) == 1:
            return super()._internal_process_submissions(delayed_submissions)
        self.folder.mkdir(parents=True, exist_ok=True)
        pickles = [self.folder / f"{uuid.uuid4().hex}.pkl" for _ in delayed_submissions]
        for delayed, path in zip(delayed_submissions, pickles, strict=True):
            delayed.set_timeout(self.parameters["time"], self.max_num_timeout)
            delayed.dump(path)
        self.parameters["map_count"] = len(pickles)
        first = self._submit_command(self._submitit_command_str)
        jobs = [
            SlurmJob(folder=self.folder, job_id=f"{first.job_id}_{index}")
            for index in range(len(pickles))
        ]
        for job, path in zip(jobs, pickles, strict=True):
            job.paths.move_temporary_file(path, "submitted_pickle")
        return jobs
