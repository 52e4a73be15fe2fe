"""The agents' side: sessions, what each is to be told, and what they say."""
