"""Tell a person."""

from atoll.report.charts import draw_charts, draw_slide
from atoll.report.page import render_report
from atoll.report.vega import chart_pdf, chart_png, chart_svg
from atoll.report.view import RunView, StudyView
from atoll.report.words import tell_verdict

__all__ = [
    "RunView",
    "StudyView",
    "chart_pdf",
    "chart_png",
    "chart_svg",
    "draw_charts",
    "draw_slide",
    "render_report",
    "tell_verdict",
]
