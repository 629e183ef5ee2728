"""A systemd service for a camera and a model; see ``kd-edge install-service``."""

from kd_edge.service.install import Outcome, install, uninstall
from kd_edge.service.plan import Installation, Plan, Service, make_plan

__all__ = ["Installation", "Outcome", "Plan", "Service", "install", "make_plan", "uninstall"]
