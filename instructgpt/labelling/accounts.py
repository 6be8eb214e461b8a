"""Makes a labeler's account. Runs inside Label Studio's own environment, as a program.

Standard input: a JSON object of name, login and password; or null, to make no account
and the database alone. The last line of standard output: the account's API token, as
JSON. Repeating a call changes nothing.

A form of signing up adds people to the oldest organisation. The first one made here is
therefore empty, and nobody has an invitation to it.
"""

import json
import os
import sys


def main() -> None:
    """Brings the database up to date and makes the account unless it exists."""
    import django
    import label_studio

    # Label Studio's own modules import each other by short names.
    sys.path.insert(0, os.path.dirname(label_studio.__file__))
    os.environ["DJANGO_SETTINGS_MODULE"] = "label_studio.core.settings.label_studio"
    account = json.load(sys.stdin)
    django.setup()

    from django.core.management import call_command
    from django.db import connection, transaction

    call_command("migrate", "--no-color", verbosity=0)
    if account is None:
        print(json.dumps(""))
        return
    with connection.cursor() as cursor:
        # Readers and a writer do not wait for each other; the setting is kept.
        cursor.execute("PRAGMA journal_mode=wal;")
    with transaction.atomic():
        token = _token(**account)
    print(json.dumps(token))


def _token(name: str, login: str, password: str) -> str:
    """The token of an account, which is made with an organisation of its own."""
    from organizations.models import Organization
    from users.models import User

    if not Organization.objects.exists():
        Organization.objects.create(title="Nobody", created_by=None)
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
