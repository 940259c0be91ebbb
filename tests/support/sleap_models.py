"""What users do with a lab's models in the real SLEAP window, one scenario a test."""

from collections.abc import Callable
from pathlib import Path

from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import (
    QAbstractButton,
    QCheckBox,
    QComboBox,
    QLabel,
    QTableView,
    QWidget,
)
from sleap_scenarios import (
    dialog_of,
    enter,
    leave,
    press_run_remotely,
    remote_button,
    tell_models,
    tell_predictions,
)
from sleap_user import Scenario, User, run

PATIENCE_S = 150.0


# -- the keyboard ----------------------------------------------------------------------


def type_keys(user: User, name: str, text: str, *keys: Qt.Key) -> None:
    """Type into the field of this name, key by key."""
    field = user.named(name, QWidget)
    assert field.isEnabled(), name
    field.setFocus()
    QTest.keyClicks(field, text)
    for key in keys:
        QTest.keyClick(field, key)


def press_space(user: User, name: str) -> None:
    """Press the button of this name as the keyboard does."""
    button = user.named(name, QAbstractButton)
    assert button.isVisible() and button.isEnabled(), name
    button.setFocus()
    QTest.keyClick(button, Qt.Key.Key_Space)


def is_ready(user: User, name: str) -> Callable[[], bool]:
    return lambda: user.named(name, QAbstractButton).isEnabled()


# -- the browser -----------------------------------------------------------------------


def open_models(user: User) -> Scenario:
    user.menu("remoteModelsAction")
    yield lambda: user.is_open("RemoteModelsWindow")


def pick_first(user: User) -> Scenario:
    """Choose the first model with the keyboard, and wait until all of it is told."""
    table = user.named("modelsTable", QTableView)
    table.setFocus()
    table.setCurrentIndex(table.model().index(0, 0))
    QTest.keyClick(table, Qt.Key.Key_Home)
    yield lambda: user.is_open("factId")


def notice(user: User) -> str:
    return user.label("modelsNoticeLabel")


def facts(user: User) -> dict[str, str]:
    """Return what the browser says of the chosen model."""
    window = user.named("RemoteModelsWindow", QWidget)
    labels = window.findChildren(QLabel)
    return {
        label.objectName().removeprefix("fact"): label.text()
        for label in labels
        if label.objectName().startswith("fact")
    }


def shoot(user: User, name: str) -> None:
    user.shot(name, user.named("RemoteModelsWindow", QWidget))


def share(user: User) -> Scenario:
    """Publish the model that lies beside the project."""
    yield from enter(user)
    yield from open_models(user)
    yield lambda: "no models yet" in user.label("modelsEmptyLabel")
    shoot(user, "models-empty")
    press_space(user, "publishModelButton")
    yield lambda: user.is_open("PublishModelDialog")
    yield lambda: user.named("localModelChooser", QComboBox).isEnabled()
    type_keys(user, "publishNotesEdit", "Good on small fish.")
    inside = user.named("PublishModelDialog", QWidget)
    alias = user.named("publishAliasEdit", QWidget, inside)
    alias.setFocus()
    QTest.keyClicks(alias, "fish v1")
    user.say("refused", words=user.label("publishHintLabel"))
    for _ in range(3):
        QTest.keyClick(alias, Qt.Key.Key_Backspace)
    QTest.keyClicks(alias, "-v1")
    user.shot("publish", inside)
    QTest.keyClick(alias, Qt.Key.Key_Return)
    yield lambda: "Published as fish-v1" in notice(user)
    yield lambda: user.rows("modelsTable") == 1
    yield lambda: user.is_open("factId")
    shoot(user, "models")
    user.say("published", notice=notice(user), facts=facts(user))
    leave(user)


def take(user: User) -> Scenario:
    """Find the model, pull it, then predict with the lab's copy of it."""
    yield from enter(user)
    yield from open_models(user)
    yield lambda: user.rows("modelsTable") == 1
    type_keys(user, "modelsFilterEdit", "no such")
    yield lambda: "No model matches" in user.label("modelsEmptyLabel")
    type_keys(user, "modelsFilterEdit", "", *[Qt.Key.Key_Backspace] * 7)
    type_keys(user, "modelsFilterEdit", "fish-v1")
    yield lambda: user.rows("modelsTable") == 1
    yield from pick_first(user)
    press_space(user, "pullModelButton")
    yield lambda: " is in " in notice(user)
    shoot(user, "models-pulled")
    user.say("pulled", notice=notice(user), facts=facts(user))
    tell_models(user)
    press_space(user, "useForInferenceButton")
    yield lambda: user.is_open("RemoteTrainingDialog")
    chooser = user.named("modelChooser", QComboBox)
    yield lambda: chooser.currentText().startswith("fish-v1")
    press_space(user, "configureButton")
    yield lambda: dialog_of(user, "inference").isVisible()
    yield lambda: remote_button(user, "inference").isEnabled()
    press_run_remotely(user, "inference")
    yield lambda: "with fish-v1" in user.label("planLabel") or is_sent(user)
    user.shot("sending", user.named("RemoteTrainingDialog", QWidget))
    yield lambda: user.window().state["has_changes"]  # type: ignore[attr-defined]
    tell_predictions(user)
    leave(user)


def is_sent(user: User) -> bool:
    return "Nothing configured" in user.label("planLabel")


def publish_training(user: User) -> Scenario:
    """Train, and publish what was trained."""
    yield from enter(user)
    box = user.named("publishBox", QCheckBox)
    box.setFocus()
    QTest.keyClick(box, Qt.Key.Key_Space)
    type_keys(user, "publishAliasEdit", "fish")
    user.press_named("configureButton")
    yield lambda: remote_button(user, "training").isEnabled()
    user.press(remote_button(user, "training"))
    yield lambda: "are home" in user.status()
    yield lambda: "Published as" in user.status()
    user.say("said", status=user.status())
    yield from open_models(user)
    yield lambda: user.rows("modelsTable") == 1
    yield from pick_first(user)
    user.say("listed", facts=facts(user), saved=Path.cwd().as_posix())
    user.window().state["has_changes"] = False  # type: ignore[attr-defined]
    leave(user)


if __name__ == "__main__":
    scenarios = {"share": share, "take": take, "publish_training": publish_training}
    run(scenarios, PATIENCE_S)
