"""The few widgets that the pages are made of, each with its name and its manners.

Everything that shows text shows it as plain text; everything has an object name and
words for a screen reader. Called by the pages and the dialog.
"""

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QLineEdit, QPushButton, QSizePolicy, QWidget

__all__ = ["plain_label", "push_button", "text_edit"]


def plain_label(
    parent: QWidget, name: str, text: str = "", *, wraps: bool = False
) -> QLabel:
    """Make a label that never takes its text for HTML."""
    label = QLabel(parent)
    label.setObjectName(name)
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setText(text)
    label.setWordWrap(wraps)
    if wraps:
        # A long word in it must not dictate the width of the window.
        policy = label.sizePolicy()
        policy.setHorizontalPolicy(QSizePolicy.Policy.Ignored)
        label.setSizePolicy(policy)
    return label


def push_button(
    parent: QWidget, name: str, text: str, accessible_name: str = ""
) -> QPushButton:
    """Make a button; its own text is what is read aloud unless another is given."""
    button = QPushButton(text, parent)
    button.setObjectName(name)
    if accessible_name:
        button.setAccessibleName(accessible_name)
    return button


def text_edit(
    parent: QWidget, name: str, accessible_name: str, placeholder: str = ""
) -> QLineEdit:
    """Make a line to type in."""
    edit = QLineEdit(parent)
    edit.setObjectName(name)
    edit.setAccessibleName(accessible_name)
    edit.setPlaceholderText(placeholder)
    return edit
