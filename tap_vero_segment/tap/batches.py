"""BATCH messages that honour selection and stream maps, which the SDK's own do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from singer_sdk.batch import Batcher
from singer_sdk.helpers._batch import SDKBatchMessage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from singer_sdk.helpers._batch import BatchConfig

    from tap_vero_segment.record import Record
    from tap_vero_segment.tap.streams import VeroStream


def write_batches(
    stream: VeroStream, records: Iterable[Record], config: BatchConfig
) -> Iterator[SDKBatchMessage]:
    """Write records to batch files, as the RECORD messages would have them.

    Args:
        stream: The stream that the records belong to.
        records: The records of one page; each file holds them up to the configured size.
        config: The setting ``batch_config``.

    Yields:
        A message for each file, which is complete by then.
    """
    mapped: dict[str, list[Record]] = {}
    for record in records:
        for message in stream.mapped(record):
            mapped.setdefault(message.stream, []).append(message.record)
    for name, batch in mapped.items():
        batcher = Batcher(tap_name=stream.tap_name, stream_name=name, batch_config=config)
        for manifest in batcher.get_batches(iter(batch)):
            yield SDKBatchMessage(stream=name, encoding=config.encoding, manifest=manifest)
