from .docking import (
    ASIDE as ASIDE,
    VERB_PANELS as VERB_PANELS,
    go_to_panel as go_to_panel,
    lay_as_tab as lay_as_tab,
    make_panel as make_panel,
    open_panel as open_panel,
)
from .findings import (
    Columns as Columns,
    Findings as Findings,
    Numbers as Numbers,
    RowTable as RowTable,
    copy_text as copy_text,
    join_with_tabs as join_with_tabs,
)
from .folding import (
    COLOURS as COLOURS,
    Folded as Folded,
    FoldingRow as FoldingRow,
    RichLabel as RichLabel,
    elide_items as elide_items,
    lay_below as lay_below,
    shorten_number as shorten_number,
    show_part as show_part,
    take_either_mark as take_either_mark,
)
from .form import (
    Form as Form,
    Labels as Labels,
    OptionsForm as OptionsForm,
    errors_in_panel_words as errors_in_panel_words,
    frames_of as frames_of,
    in_panel_words as in_panel_words,
    labels_of_verbs as labels_of_verbs,
    option_widget as option_widget,
    preference as preference,
    push_button as push_button,
)
from .history import (
    history_of as history_of,
)
from .manual import (
    open_manual as open_manual,
    show_file as show_file,
)
from .panel import (
    DASH as DASH,
    TIMES as TIMES,
    Panel as Panel,
    Work as Work,
    legend as legend,
    plots_ready as plots_ready,
    table as table,
)
from .places import (
    begin_at as begin_at,
)
from .plots import (
    PlotCanvas as PlotCanvas,
    as_label as as_label,
    draw_plot as draw_plot,
    short_label as short_label,
    show_legend as show_legend,
)
from .results import (
    Opened as Opened,
    Outcome as Outcome,
    Target as Target,
    add_opened as add_opened,
    add_stack as add_stack,
    coarse_levels as coarse_levels,
    free_path as free_path,
    new_store_path as new_store_path,
    open_levels as open_levels,
    open_store as open_store,
    require_room as require_room,
    show_arrival as show_arrival,
    store_edit as store_edit,
    store_target as store_target,
    typed_path as typed_path,
    typed_store as typed_store,
    watch_images as watch_images,
    write_outcome as write_outcome,
)
from .runner import (
    JobRunner as JobRunner,
    check_unread as check_unread,
    destroy_after_jobs as destroy_after_jobs,
    is_alive as is_alive,
    new_timer as new_timer,
)
from .saving import (
    ask_existing as ask_existing,
    ask_file as ask_file,
    ask_new_project as ask_new_project,
)
from .session import (
    describe_unsaved as describe_unsaved,
    session_of as session_of,
)
from .together import (
    explaining as explaining,
)
