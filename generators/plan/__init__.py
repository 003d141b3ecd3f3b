"""What `doit` would do, why, and how long it would take; nothing is changed to find out.

`forecast` compares the stages as the specs now ask for them with what is remembered of their last success; `changes` names the edited
place of each difference; `estimate` says what it takes; `show` tells it.
"""

from generators.plan.estimate import Machine, Work, estimate
from generators.plan.forecast import RUNS, Reason, Stage, Step, Success, forecast, touched
from generators.plan.show import as_json, show

__all__ = ["RUNS", "Machine", "Reason", "Stage", "Step", "Success", "Work", "as_json", "estimate", "forecast", "show", "touched"]
