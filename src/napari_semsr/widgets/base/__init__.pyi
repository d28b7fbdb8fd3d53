from .controls import (
    is_plotting_imported as is_plotting_imported,
)
from .folder import FolderRun as FolderRun
from .folding import (
    COLOURS as COLOURS,
    CollapsibleSection as CollapsibleSection,
    RichTextLabel as RichTextLabel,
    WrappingRow as WrappingRow,
    accept_decimal_separators as accept_decimal_separators,
    elide_items as elide_items,
    hide_trailing_zeros as hide_trailing_zeros,
    set_widget_visible as set_widget_visible,
    stack_widgets as stack_widgets,
)
from .form import (
    Form as Form,
    Labels as Labels,
    OptionsForm as OptionsForm,
    convert_names_to_panel_labels as convert_names_to_panel_labels,
    create_button as create_button,
    create_option_widget as create_option_widget,
    get_command_labels as get_command_labels,
    get_preference as get_preference,
    relabel_errors as relabel_errors,
)
from .history import (
    find_helper_layers as find_helper_layers,
    get_removed_layers as get_removed_layers,
)
from .input_layers import NO_CHOICE as NO_CHOICE
from .navigation import (
    PANELS as PANELS,
    create_panel as create_panel,
    find_title as find_title,
    open_manual as open_manual,
    open_panel as open_panel,
    show_file as show_file,
    switch_panel as switch_panel,
)
from .panel import (
    DockContent as DockContent,
    VerbPanel as VerbPanel,
)
from .places import (
    get_start_folder as get_start_folder,
)
from .plots import (
    PlotCanvas as PlotCanvas,
    add_legend as add_legend,
    draw_plot as draw_plot,
    format_label as format_label,
    shorten_label as shorten_label,
)
from .results import (
    JobResult as JobResult,
    OpenedImage as OpenedImage,
    add_opened_image as add_opened_image,
    add_stack as add_stack,
    check_cache_space as check_cache_space,
    choose_store_path as choose_store_path,
    create_coarse_levels as create_coarse_levels,
    create_store_edit as create_store_edit,
    find_free_store_path as find_free_store_path,
    fit_view_to_image as fit_view_to_image,
    get_entered_path as get_entered_path,
    get_entered_store as get_entered_store,
    is_created_path as is_created_path,
    open_image_levels as open_image_levels,
    open_store as open_store,
    remove_created_store as remove_created_store,
    run_and_open as run_and_open,
    watch_images as watch_images,
)
from .results_group import (
    TIMES as TIMES,
    Columns as Columns,
    Findings as Findings,
    Numbers as Numbers,
    SelectableTable as SelectableTable,
    copy_to_clipboard as copy_to_clipboard,
    format_legend as format_legend,
    format_value_table as format_value_table,
)
from .runner import (
    JobRequest as JobRequest,
    JobRunner as JobRunner,
    check_layers_unused as check_layers_unused,
    check_path_unused as check_path_unused,
    create_timer as create_timer,
    is_alive as is_alive,
)
from .saving import (
    ask_existing_file as ask_existing_file,
    ask_existing_folder as ask_existing_folder,
    ask_new_project_path as ask_new_project_path,
    ask_output_file as ask_output_file,
)
from .session import (
    describe_unsaved_content as describe_unsaved_content,
    get_session as get_session,
)
