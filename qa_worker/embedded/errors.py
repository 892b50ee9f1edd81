"""The one error of the local stack."""

from __future__ import annotations

from qa_worker.domain.errors import QaError


class LocalStackError(QaError):
    """The local stack could not be started, reached or stopped. The message says why and what to do."""
