"""Preference pairs alone: principles and prompts to a data set, filtered and balanced.

    python -m flows.preference_data --preset quick --model embedded
    python -m flows.preference_data --prompts mine.jsonl --no-scenarios --max-pairs 200 --dry-run

Killed or interrupted at any time, the same command goes on where it was.
"""

import sys

from prefect import flow

from flows.cli import run_command
from flows.config import PreferenceDataConfig
from flows.inputs import read_sources
from flows.plan import plan_preferences
from flows.reporting import preferences_summary
from flows.results import Summary
from flows.session import open_site
from flows.stages import make_preferences
from tasks.cancellation import ends_as_cancelled
from tasks.flow_alerts import TELLS
from tasks.models import find_model


@flow(name="preference-data", persist_result=False, **TELLS)
@ends_as_cancelled
def preference_data(config: PreferenceDataConfig) -> Summary:
    """Let a model answer, criticise and revise under each principle; keep the good pairs."""
    sources = read_sources(config)
    tags = {"constitution": sources.constitution.fingerprint}
    with open_site(config, "preference-data", tags) as site:
        model = find_model(site, config.model, config.fallback)
        pairs = make_preferences(site, config, sources, model)
        return preferences_summary(config, model, pairs)


if __name__ == "__main__":
    sys.exit(
        run_command(
            PreferenceDataConfig,
            preference_data,
            plan_preferences,
            prog="python -m flows.preference_data",
            about=__doc__,
        )
    )
