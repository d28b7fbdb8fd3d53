from .call import (
    Call as Call,
    CallOutput as CallOutput,
    File as File,
    Hole as Hole,
    Input as Input,
    Plan as Plan,
)
from .execution import (
    RECORD as RECORD,
    CallRecord as CallRecord,
    Digest as Digest,
    PlanOutcome as PlanOutcome,
    PlanTask as PlanTask,
    Results as Results,
    digest_of_file as digest_of_file,
    digest_of_values as digest_of_values,
    digests_of_input as digests_of_input,
    execute as execute,
    execute_each as execute_each,
    file_state as file_state,
    known_verb as known_verb,
    output_path as output_path,
    plan_job as plan_job,
    values_of_call as values_of_call,
)
from .history import (
    RecordedPlan as RecordedPlan,
    plan_of as plan_of,
    read_history as read_history,
    repeatable_jobs as repeatable_jobs,
)
