"""The agents' side: sessions, what each agent is sent, and what agents report."""
