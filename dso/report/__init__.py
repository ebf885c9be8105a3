"""Results as files, tables and plots."""

from dso.report.folder import ANSWERS, write_report
from dso.report.plots import plot_occupations, plot_strength
from dso.report.results import Result, read_results, write_results
from dso.report.scene_examples import Asked, Described, ScenesPage, Section, Twins
from dso.report.scenes_page import write_scenes_page
from dso.report.scenes_sheet import draw_scenes_sheet
from dso.report.table import Grid, grid, markdown_table, results_table
from dso.report.titles import TITLES, Title, in_order, title_of

__all__ = [
    "ANSWERS",
    "TITLES",
    "Asked",
    "Described",
    "Grid",
    "Result",
    "ScenesPage",
    "Section",
    "Title",
    "Twins",
    "draw_scenes_sheet",
    "grid",
    "in_order",
    "markdown_table",
    "plot_occupations",
    "plot_strength",
    "read_results",
    "results_table",
    "title_of",
    "write_report",
    "write_results",
    "write_scenes_page",
]
