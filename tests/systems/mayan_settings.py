"""Django settings of the Mayan EDMS that `mayan.py` starts, read in Mayan's own environment: no worker beside it.

Tasks are done in the request that asks for them. A failing one (a program for scanned text that is not installed) fails
by itself, as it would in a worker.
"""

from mayan.settings.production import *  # type: ignore[import-not-found]  # noqa: F403 - how Django settings build on others

CELERY_TASK_ALWAYS_EAGER = True
CELERY_TASK_EAGER_PROPAGATES = False
