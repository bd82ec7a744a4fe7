"""How the flow that a config reads was made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hmhi.config import DataConfig
from hmhi.data.catalog import SYNTHETIC, get_spec
from hmhi.data.index import find_layout
from hmhi.flow.provenance import computed_record, read_record


def flow_records(config: DataConfig, names: Sequence[str], split: str) -> dict[str, dict[str, str]]:
    """Data set -> record of its flow (see `hmhi.flow.provenance`); sets of still images have none.

    Args:
        config: Where the sets lie, and where their flow comes from.
        names: Data sets.
        split: ``train`` or ``val``.

    Raises:
        ConfigError: A data set's name is unknown.
        DatasetNotFoundError: A data set is not below ``config.root``.
    """
    records = {}
    for name in names:
        if name == SYNTHETIC:
            # The last frame's flow leads to a frame that is rendered but not shown.
            records[name] = computed_record(config.synthetic.flow, last="forward", join=config.join)
        elif get_spec(name).still:
            continue
        elif config.flow == "dis":
            records[name] = computed_record("dis", join=config.join)
        else:
            records[name] = read_record(find_layout(Path(config.root), get_spec(name), split).flows)
    return records
