"""The page `docs/settings.md`, generated from the classes so that it cannot contradict them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from worker.settings.base import Section
from worker.settings.instance import InstanceSettings
from worker.settings.root import Settings
from worker.settings.schema import Key, allowed, dotted, environment_name, extra, is_secret, table_of, unit

INTRODUCTION = """\
# Settings

<!-- Made by `autotag config reference` from the classes in worker/settings; do not edit. -->

Every setting has a default; an empty configuration starts a service that tags nothing, because all providers are off.
`autotag config show` prints the settings in effect and where each came from, `--instance NAME` those of an instance.

## Where settings come from

From the highest precedence to the lowest:

1. **Environment**: `AUTOTAG_` and the key in capitals, with `__` between a table and what is in it. An empty variable
   counts as not set. A list is written with commas (`a,b`) or as JSON, a table of your own keys as JSON.
2. **`.env`** in the working directory: the same names.
3. **Secrets directory** (`--secrets-dir`, `AUTOTAG_SECRETS_DIR`, and systemd's `CREDENTIALS_DIRECTORY`): one file for
   each setting, named as the key with `__` for the dots, such as `amqp__password` or
   `instances__acme__google_cloud_vision__api_key`. Links inside the directory are followed, links out of it refused.
   All files together may hold 1 MiB. Files without `__` in their name are left alone.
4. **TOML file**: the first of `--config`, `AUTOTAG_CONFIG`, `./autotag.toml`, `/etc/autotag/autotag.toml`.
5. **Defaults**, as listed below.

A key that does not exist, a value out of its range, and settings that contradict each other are refused at start, each
with the key, the value (unless it is a secret) and where it was written. So is a variable that begins with `AUTOTAG_`
and is not a setting, except `AUTOTAG_CONFIG`, `AUTOTAG_SECRETS_DIR`, `AUTOTAG_TEST_…` and the addresses that
Kubernetes sets for a service named `autotag`.

SIGHUP or `autotag reload` reads all sources again; wrong settings change nothing. `[amqp]`, `[http]`, `[log]`,
`retry.delays_s`, `cache_dir`, `state_dir` and `control_socket` take effect at the next start only, and the log says so.

## Virtual instances

What is under `[defaults]` applies to every instance. `[instances.NAME]` has the same keys and overrides single ones:

```toml
[defaults.tensorflow]
enabled = true

[instances.acme.tensorflow]
confidence_threshold = 0.3      # still enabled, from the defaults
```

A table is merged key by key; a list (`drop`) or a table of your own keys (`sites`, `rename`) is replaced as a whole.
A name is spelled as in the events: letters, digits, `.`, `_` and `-` (`[instances."acme.org"]`). A variable
or a secret matches it without regard to case, and with `_` for what is neither letter nor digit
(`AUTOTAG_INSTANCES__ACME_ORG__ENABLED`); an instance that only they name gets that name in lower case.

An asset is tagged when the system (`enabled`), its instance and its site are all on. The limit on its tags is the
system's `maximum_number_of_tags_per_asset`, or the instance's where that is lower; an instance's above the system's is
refused. 0 means no limit; in an instance, no limit of its own.
"""


def reference() -> str:
    """The whole page."""
    parts = [INTRODUCTION, "## The service\n", *_table(Settings, ())]
    parts += ["## Every instance\n", "The same keys may be set under `[instances.NAME]`.\n"]
    parts += _table(InstanceSettings, ("defaults",))
    return "\n".join(parts)


def _table(table: type[Section], key: Key) -> Iterator[str]:
    rows = [_row((*key, name), field) for name, field in table.model_fields.items() if _is_setting(name, field)]
    if rows:
        if key:
            yield f"### `[{dotted(key)}]`\n"
        yield (table.__doc__ or "").partition("\n")[0] + "\n"
        yield (
            "| Key | What it does | Allowed | Default | Environment |\n|---|---|---|---|---|\n" + "\n".join(rows) + "\n"
        )
    for name, field in table.model_fields.items():
        inner = table_of(field)
        if inner and inner is not InstanceSettings:
            yield from _table(inner, (*key, name))


def _is_setting(name: str, field: FieldInfo) -> bool:
    return table_of(field) is None and name != "instances"


def _row(key: Key, field: FieldInfo) -> str:
    in_unit = f", in {word}" if (word := unit(key[-1], field)) else ""
    secret = " Secret." if is_secret(field) else ""
    cells = (
        f"`{key[-1]}`",
        f"{field.description}{secret}",
        allowed(field) + in_unit,
        str(extra(field).get("default_text") or _default(field.get_default())),
        f"`{environment_name(key)}`",
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(value: Any) -> str:
    match value:
        case None:
            return "unset"
        case SecretStr():  # a default is public: it is part of the source code
            return f"`{json.dumps(value.get_secret_value())}`"
        case float():
            return f"`{value:g}`"
        case _:
            return f"`{json.dumps(value)}`"
