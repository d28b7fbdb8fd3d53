from .models import NEWS as NEWS
