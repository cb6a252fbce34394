"""What a report is made of; see `vmaptune.analysis.facts`."""

from __future__ import annotations

from vmaptune.analysis.facts import RunFacts as RunFacts
from vmaptune.analysis.facts import read_facts as read_facts
