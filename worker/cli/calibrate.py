"""`autotag calibrate`: curves and thresholds for the local model, from photographs that people have labelled."""

from __future__ import annotations

import math
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli.context import CliContext
from worker.cli.exit_codes import ExitCode
from worker.cli.explaining import settings_for
from worker.cli.labelled_photographs import FolderOption, LabelledArgument, checked_or_exit, run_or_exit, tagged
from worker.cli.output import print_error, print_json, print_line, print_lines
from worker.messages import DEFAULT_INSTANCE

if TYPE_CHECKING:
    from worker.diagnostics.calibration import Calibrated, Chosen, Judgements, Scored
    from worker.diagnostics.labelled import Labelled, LabelledFile
    from worker.engine import Engine
    from worker.models.manifest import Calibration
    from worker.settings import InstanceTensorFlowSettings, Settings
    from worker.tagging.explain import Explanation

_NAMES = {"parent": "broader terms", "label": "labels"}


def calibrate(
    context: typer.Context,
    labelled: LabelledArgument,
    folder: FolderOption = None,
    precision: Annotated[
        float, typer.Option(min=0.5, max=0.99, help="The share of the tags that has to be true.")
    ] = 0.9,
    instance: Annotated[
        str, typer.Option(help="Whose settings apply, and whose thresholds are written.", metavar="NAME")
    ] = DEFAULT_INSTANCE,
    model: Annotated[str | None, typer.Option(help="Another model than the first that the settings name.")] = None,
    write: Annotated[Path | None, typer.Option(help="Write the settings to a file.", metavar="FILE.toml")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Fit the local model's confidences to your own photographs, and find thresholds that are precise enough.

    LABELLED.csv is the same as for `autotag evaluate`. The curves from scores to confidences are fitted to what was
    judged; a threshold is the lowest from which on the wanted share of the tags is true. Both are cross-validated:
    every photograph is judged by what the others say. Only the local model is asked. Nothing changes until the
    settings that are printed, or written with --write, are used.

    Ends with status 1 if there are too few judged tags, no threshold is precise enough, or a file could not be tagged.
    """
    from worker.diagnostics.calibration_file import fragment, why_not_writable
    from worker.diagnostics.calibration_file import write as write_file
    from worker.errors import Misconfigured
    from worker.operations import logs

    logs.configure("error", "console")
    loaded = CliContext.of(context).load().settings
    why_not = why_not_writable(write, force=force) if write is not None else None
    if why_not:
        print_error(why_not)
        raise typer.Exit(ExitCode.USAGE)
    file = checked_or_exit(labelled, folder)
    settings = settings_for(loaded, instance, model or loaded.tensorflow.names[0], None)
    local = settings.instances[instance].tensorflow.model_copy(update={"tags": "concepts"})
    by_score = _by_score(settings, instance)

    def run(engine: Engine) -> Coroutine[Any, Any, tuple[Judgements, Calibration, int]]:
        return _judge(engine, by_score, instance, file, local.maximum_parents)

    judgements, of_model, failed = run_or_exit(by_score, run)
    found = _calibrated(judgements, of_model, settings, local, precision)
    try:
        text = fragment(
            found,
            model=settings.tensorflow.names[0],
            instance=instance,
            comment=f"`autotag calibrate {labelled} --precision {precision:g}`: {judgements.photographs:,} photographs",
        )
        if as_json:
            print_json(_as_json(found, judgements, local, failed, text))
        else:
            for line in _shown(found, judgements, local):
                print_line(line)
        _exit_if_imprecise(found, precision)
        if not as_json:
            print_line("")
            print_lines(text)
        if write is not None:
            write_file(write, text, force=force)
    except Misconfigured as error:
        print_error(error)
        raise typer.Exit(ExitCode.FAILED) from None
    if failed:
        raise typer.Exit(ExitCode.FAILED)


def _by_score(settings: Settings, instance: str) -> Settings:
    """The settings by which all that the model suggests is named with its score for confidence."""
    from worker.diagnostics.calibration import LEAST_SCORE_USED
    from worker.diagnostics.platt import IDENTITY
    from worker.models.manifest import Calibration

    own = settings.instances[instance]
    low = {"tags": "concepts", "confidence_threshold": LEAST_SCORE_USED, "specific_threshold": LEAST_SCORE_USED}
    changed = own.model_copy(update={"tensorflow": own.tensorflow.model_copy(update=low)})
    curves = {settings.tensorflow.names[0]: Calibration(label=IDENTITY, parent=IDENTITY)}
    local = settings.tensorflow.model_copy(update={"calibration": curves})
    return settings.model_copy(update={"instances": {instance: changed}, "defaults": changed, "tensorflow": local})


async def _judge(
    engine: Engine, settings: Settings, instance: str, file: LabelledFile, maximum_parents: int
) -> tuple[Judgements, Calibration, int]:
    """What was judged, the model's own curves, and how many photographs could not be tagged."""
    from worker.diagnostics.calibration import FOLDS, Judgements
    from worker.diagnostics.platt import IDENTITY
    from worker.models.manifest import Calibration

    judgements, failed = Judgements(maximum_parents), 0
    async for labelled, explanation in tagged(engine, settings, instance, file, local_only=True):
        image = explanation.result.image
        if explanation.result.status == "failed" or image is None:
            failed += 1
            continue
        # By what is in the file, so that a photograph that is there twice is not judged by itself
        judgements.add(int(image.sha256[:8], 16) % FOLDS, _scored(labelled, explanation))
    own = engine.models.packages[0].manifest.calibration if engine.models is not None else None
    return judgements, own or Calibration(label=IDENTITY, parent=IDENTITY), failed


def _scored(labelled: Labelled, explanation: Explanation) -> Iterator[Scored]:
    from worker.diagnostics.calibration import Scored, Sort
    from worker.providers.base import TENSORFLOW
    from worker.tagging.merge import Verdict
    from worker.vocabulary import ancestors

    never = {Verdict.NOT_IN_VOCABULARY, Verdict.DROPPED, Verdict.EMPTY}
    for each in explanation.choices:
        if each.provider == TENSORFLOW and each.kind in ("label", "parent", "object"):
            depth = len(ancestors(each.concept)) if each.concept is not None else 0
            sort = (
                Sort.PARENT if each.kind == "parent" else Sort.LABEL if depth or each.kind == "object" else Sort.ALONE
            )
            true = labelled.judge(each.concept, each.label)
            yield Scored(sort, each.confidence, depth, true, allowed=each.verdict not in never)


def _calibrated(
    judgements: Judgements,
    of_model: Calibration,
    settings: Settings,
    local: InstanceTensorFlowSettings,
    precision: float,
) -> Calibrated:
    """The outcome; the command ends with status 1 where nothing can be fitted."""
    from worker.diagnostics.calibration import calibrated

    found = calibrated(
        judgements,
        prior=of_model,
        current=settings.tensorflow.calibration.get(settings.tensorflow.names[0], of_model),
        thresholds=(local.threshold, local.specific_threshold),
        wanted=precision,
    )
    if not found.curves:
        print_error(_too_few(judgements))
        raise typer.Exit(ExitCode.FAILED)
    return found


def _too_few(judgements: Judgements) -> str:
    from worker.diagnostics.calibration import LEAST_JUDGED, LEAST_SCORE_USED, Sort

    parents, labels = (judgements.number(sort).number for sort in (Sort.PARENT, Sort.LABEL))
    most = max(parents, labels)
    if not most:
        return (
            f"no tag could be judged: of {judgements.photographs} photographs, the model suggests none from a score of "
            f"{LEAST_SCORE_USED:g} on that is a broader term or has one, and that the file says is true or false"
        )
    needed = math.ceil(LEAST_JUDGED / most * judgements.photographs)
    return (
        f"too few photographs: in {judgements.photographs} of them {parents} broader terms and {labels} labels were "
        f"judged, and {LEAST_JUDGED} of either are needed: about {needed} photographs"
    )


def _exit_if_imprecise(found: Calibrated, precision: float) -> None:
    """End with status 1 if a threshold was looked for, and none is good enough."""
    for name, chosen in (("confidence_threshold", found.confidence), ("specific_threshold", found.specific)):
        if chosen is not None and not chosen.reached:
            best = f"; the best is {chosen.threshold:g}: {chosen.precision}" if chosen.precision.number else ""
            print_error(f"no {name} is reached by enough tags of which {precision:.0%} are true{best}")
    if not found.reached:
        print_error("nothing is written; --precision asks for less, and more photographs may show more")
        raise typer.Exit(ExitCode.FAILED)


def _shown(found: Calibrated, judgements: Judgements, local: InstanceTensorFlowSettings) -> Iterator[str]:
    from worker.diagnostics.calibration import LEAST_JUDGED, Sort

    yield f"photographs           {judgements.photographs:,}"
    for sort in (Sort.PARENT, Sort.LABEL):
        judged, fitted = judgements.number(sort), found.curves.get(sort)
        yield f"{_NAMES[sort]:<22}{judged.number:,} judged, {judged.true:,} true"
        if fitted is None:
            yield f"  fewer than {LEAST_JUDGED}: they stay as they are"
            continue
        before, after = fitted.reliability_before, fitted.reliability_after
        yield f"  slope               {fitted.before.slope:.3f} -> {fitted.after.slope:.3f}"
        yield f"  offset              {fitted.before.offset:.3f} -> {fitted.after.offset:.3f}"
        yield f"  calibration error   {before.calibration_error:.3f} -> {after.calibration_error:.3f}"
        yield f"  Brier score         {before.brier_score:.3f} -> {after.brier_score:.3f}"
    for name, was, chosen in _thresholds(found, local):
        if chosen is not None and chosen.reached:
            yield f"{name:<22}{was:g} -> {chosen.threshold:g}: {chosen.precision} are true"
    if found.reached:
        number = max(1, judgements.photographs)
        yield f"tags that are true    {found.before} -> {found.after}"
        yield f"judged tags an image  {found.before.number / number:.2f} -> {found.after.number / number:.2f}"


def _thresholds(found: Calibrated, local: InstanceTensorFlowSettings) -> tuple[tuple[str, float, Chosen | None], ...]:
    return (
        ("confidence_threshold", local.threshold, found.confidence),
        ("specific_threshold", local.specific_threshold, found.specific),
    )


def _as_json(
    found: Calibrated, judgements: Judgements, local: InstanceTensorFlowSettings, failed: int, text: str
) -> dict[str, object]:
    return {
        "photographs": judgements.photographs,
        "failed": failed,
        "curves": {sort: fitted.to_json() for sort, fitted in found.curves.items()},
        "thresholds": {
            name: {"before": was} | ({} if chosen is None else chosen.to_json())
            for name, was, chosen in _thresholds(found, local)
        },
        "before": found.before.to_json(),
        "after": found.after.to_json(),
        "settings": text if found.reached else None,
    }
