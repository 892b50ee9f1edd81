"""Translates Celery into one inward call each, and outcomes back."""
