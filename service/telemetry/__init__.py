"""What a process says about itself while it runs: metrics, traces, and the ids that its log lines carry.

Knows nobody of ours; whoever acts tells it. Nothing in here may hold a secret, a URL or, in a label, an id.
"""
