from .learn import (
    MODELS_TRUST as MODELS_TRUST,
    TrustLearning as TrustLearning,
    TrustLearnt as TrustLearnt,
)
from .map import (
    TRUST as TRUST,
    TrustOptions as TrustOptions,
    TrustReport as TrustReport,
    knows_errors as knows_errors,
)
