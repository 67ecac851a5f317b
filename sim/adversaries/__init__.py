"""Adversaries: filters around honest engines, holding their nodes' keys (docs/PROTOCOL.md section 1).

None of them knows more than its node does, and what the other members of its `Coalition` tell it.
"""
