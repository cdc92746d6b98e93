"""`dc-rt app`: a page for people who do not type. Imported when it is used: Gradio comes with the extra `app`.

Jobs, their queue, their worker, what is checked of a video and who may ask are those of `dc_rt.serve`, in the modules
of it that need nothing but what Gradio stands on too (Starlette, uvicorn, pydantic). Here is what a page adds: a folder
that goes with the app, a browser that each job belongs to, and the page itself.
"""
