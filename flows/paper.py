"""A paper draft from what was really made and measured: no number without a source.

    python -m flows.paper --workspace runs/poc
    python -m flows.paper --comparison runs/comparison --review runs/expert_review
    python -m flows.paper --title "Kindness by constitution" --authors "A. Author" --dry-run

Methods are the settings that were used, results are read from their files, and each number links
to its file, place, MLflow run and command. What is missing is said to be not measured. With pandoc
there are LaTeX and PDF as well.
"""

import sys

from flows.cli import run_command
from flows.paper_config import PaperConfig
from flows.paper_steps import plan_paper, write_paper

if __name__ == "__main__":
    sys.exit(
        run_command(
            PaperConfig, write_paper, plan_paper, prog="python -m flows.paper", about=__doc__
        )
    )
