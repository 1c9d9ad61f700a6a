"""The computed answers of the exam questions in ``docs/teaching.md``."""
