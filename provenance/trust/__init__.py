"""Trust: the numbered steps of verification (:mod:`~provenance.trust.verification`)."""
