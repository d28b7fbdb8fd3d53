from .learn import (
    TrustLearning as TrustLearning,
    TrustLearnt as TrustLearnt,
    learn_trust_job as learn_trust_job,
)
from .map import (
    TrustOptions as TrustOptions,
    TrustReport as TrustReport,
    knows_errors as knows_errors,
    trust_job as trust_job,
)
from .spots import DoubtedObjects as DoubtedObjects
