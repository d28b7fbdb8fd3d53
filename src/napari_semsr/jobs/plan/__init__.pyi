from .call import (
    Call as Call,
    CallOutput as CallOutput,
    File as File,
    Input as Input,
    Plan as Plan,
    create_call as create_call,
    require_verb as require_verb,
)
from .execution import (
    RECORD as RECORD,
    Digest as Digest,
    Results as Results,
    collect_arguments as collect_arguments,
    digest_file as digest_file,
    digest_grey_values as digest_grey_values,
    execute as execute,
    find_output_path as find_output_path,
    list_digest_functions as list_digest_functions,
    start_call as start_call,
)
from .history import (
    RecordedPlan as RecordedPlan,
    create_plan as create_plan,
    read_history as read_history,
)
