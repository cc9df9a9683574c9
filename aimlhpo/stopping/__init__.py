"""When a study has had enough: rules beside the number of trials, and the note of the one that ended it.

Stops       what the ledger asks before each claim
  |-- Rule      one key of the YAML each: it takes every trial that ends, once, and says why the study should end
  `-- Ended     which rule it was, and why; noted in the study, so that all agents stop alike and `status` can tell
"""

from aimlhpo.stopping.ended import Ended, ending_of, read_note
from aimlhpo.stopping.rule import Moment, Rule
from aimlhpo.stopping.stops import Look, Stops, ended_already, make_stops

__all__ = ["Ended", "Look", "Moment", "Rule", "Stops", "ended_already", "ending_of", "make_stops", "read_note"]
