"""What a teacher may be asked: whether it serves the model, its terms allow training, and it may see patient data."""

from __future__ import annotations

from medkd.config import TeacherConfig
from medkd.errors import ConfigError
from medkd.stages.estimates import asks_teacher
from medkd.stages.plan import Plan


def check_model(name: str, teacher: TeacherConfig, models: list[str]) -> None:
    """ConfigError where the models that a teacher lists do not include the configured one; an empty list says nothing."""
    if models and teacher.model not in models:
        shown = ", ".join(sorted(models)[:8])
        raise ConfigError(f"teacher_models.{name}.model: got {teacher.model!r}, this teacher serves: {shown}")


def check_terms(name: str, teacher: TeacherConfig) -> None:
    """ConfigError where a provider's terms restrict training on its output and nobody has acknowledged them."""
    if teacher.output_terms == "restricted" and not teacher.terms_acknowledged:
        raise ConfigError(
            f"teacher_models.{name}.terms_acknowledged: got false; this provider's terms restrict training models on its output. "
            "Read them, then set it to true, or use a teacher with open terms"
        )


def check_phi(plan: Plan, teacher: TeacherConfig, name: str | None = None) -> None:
    """ConfigError where patient data would go to a teacher that nobody has an agreement with. name: else the plan's teacher."""
    if plan.source and plan.source.contains_phi and asks_teacher(plan) and not teacher.phi_agreement:
        raise ConfigError(
            f"teacher_models.{name or plan.teacher['name']}.phi_agreement: got false, but the conversations contain patient data "
            "(--contains-phi yes); set it to true if your agreement with the provider covers them, or choose your own teacher"
        )
