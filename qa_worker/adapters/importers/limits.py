"""How large one call may be before it is refused at the door."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what is accepted; the caller of an importer passes them in.

    max_transcript_bytes: UTF-8 bytes of the turns of one call, as JSON in the stored form.
    max_context_bytes: UTF-8 bytes of everything beside the turns (agent, expected, metadata), as JSON.
    max_text_chars: characters of any one text (a turn, the instructions, an expected outcome).
    max_id_chars: characters of ids and of tool names.
    max_record_bytes: one line of JSONL, or one record of a JSON array, before it is decoded.
    max_document_bytes: a JSON document, which unlike JSONL has to be held in memory; also the most that is read of
    one line.
    """

    max_transcript_bytes: int = 512 * 1024
    max_context_bytes: int = 512 * 1024
    max_turns: int = 2_000
    max_tools: int = 200
    max_text_chars: int = 100_000
    max_id_chars: int = 200
    max_record_bytes: int = 4 * 1024 * 1024
    max_document_bytes: int = 64 * 1024 * 1024
