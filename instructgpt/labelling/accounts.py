"""Makes labelers' accounts. Runs inside Label Studio's own environment, as a program.

Accounts of one organisation see each other's projects, so every labeler gets an
organisation of their own. A form of signing up adds people to the oldest organisation;
the first one made here is therefore empty, and nobody knows its invitation.

Standard input: a JSON list of {"name", "login", "password"}. The last line of standard
output: a JSON object from logins to API tokens. Repeating a call changes nothing.
"""

import json
import os
import sys


def main() -> None:
    """Reads the accounts, brings the database up to date, and makes what is missing."""
    import django
    import label_studio

    # Label Studio's own modules import each other by short names.
    sys.path.insert(0, os.path.dirname(label_studio.__file__))
    os.environ["DJANGO_SETTINGS_MODULE"] = "label_studio.core.settings.label_studio"
    accounts = json.load(sys.stdin)
    django.setup()

    from django.core.management import call_command
    from django.db import connection, transaction

    call_command("migrate", "--no-color", verbosity=0)
    with connection.cursor() as cursor:
        # Readers and a writer do not wait for each other; the setting is kept.
        cursor.execute("PRAGMA journal_mode=wal;")

    with transaction.atomic():
        _close_signup()
        tokens = {account["login"]: _account(**account) for account in accounts}
    print(json.dumps(tokens))


def _close_signup() -> None:
    from organizations.models import Organization

    if not Organization.objects.exists():
        Organization.objects.create(title="Nobody", created_by=None)


def _account(name: str, login: str, password: str) -> str:
    """Makes an account and its organisation unless they exist; returns the token."""
    from organizations.models import Organization
    from users.models import User

    user = User.objects.filter(email=login).first()
    if user is None:
        user = User.objects.create_user(email=login, password=password)
    elif not user.check_password(password):
        user.set_password(password)
    user.first_name = name[:30]
    organization = Organization.objects.filter(created_by=user).first()
    if organization is None:
        organization = Organization.create_organization(created_by=user, title=name)
    organization.jwt.legacy_api_tokens_enabled = True
    organization.jwt.save()
    user.active_organization = organization
    user.save()
    return user.auth_token.key


if __name__ == "__main__":
    main()
