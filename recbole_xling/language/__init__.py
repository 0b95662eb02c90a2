"""Language codes, identification of languages, and the languages of users."""
